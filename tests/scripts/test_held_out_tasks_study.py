from __future__ import annotations

import json
import shlex

import held_out_tasks_study as study
import numpy as np
import pytest

from pwm.data.store import EpisodeStore


@pytest.mark.slow
def test_a_task_is_held_out_and_every_start_is_tried(toy, tmp_path, capsys):
    _, new = toy.tasks
    words = [w for w in toy.pretrain(tmp_path)[3:] if not w.startswith(("steps=", "model"))]
    pretrain = shlex.join(w for w in toy.pretrain(tmp_path, "steps=2")[3:] if w != "steps=24")
    given = [str(toy.data), str(tmp_path), "--new", str(toy.data), "--tasks", new]
    given += ["--pretrain", pretrain, "--episodes", "4", "8", "--test", "3", "--brute-force", "4"]
    given += ["--steps", "2", "--embedding-steps", "1", *words]
    study.main(given)
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert [row[:3] for row in rows[2:6]] == [
        [new, "4", "scratch"], [new, "4", "full"], [new, "8", "scratch"], [new, "8", "full"]
    ]  # fmt: skip
    known = toy.tasks[0]
    assert rows[-1][0] == new and rows[-1][-1] == "1 of 1" and rows[-1][1].startswith(known)
    assert rows[-1][1].split()[1] == rows[3][3]  # the same start is the same model
    model = json.loads((tmp_path / "seed_0" / new / "4/full/adaptation.json").read_text())
    assert [entry["embedding_of"] for entry in model["embeddings"][new]] == [known]


def test_stores_of_fewer_episodes_are_parts_of_those_of_more(toy, tmp_path):
    store, task = EpisodeStore.open(toy.data), toy.tasks[0]
    study.cut(store, task, tmp_path, [4, 8], test=3)
    seeds = {
        name: set(EpisodeStore.open(tmp_path / name / "data").episodes(task)["seed"].tolist())
        for name in ("4", "8", "test")
    }
    assert len(seeds["4"]) == 4 and len(seeds["test"]) == 3
    assert seeds["4"] < seeds["8"] and not seeds["8"] & seeds["test"]
    assert seeds["8"] | seeds["test"] <= set(np.unique(store.episodes(task)["seed"]).tolist())
    with pytest.raises(SystemExit, match="has 24 episodes of"):
        study.cut(store, task, tmp_path / "more", [22], test=3)


def test_a_table_over_seeds_has_means_and_errors():
    header = ["task", "episodes", "way", "loss", "score"]
    one, two = ([header, ["a", "5", "full", loss, "3.0"]] for loss in ("0.1", "0.3"))
    assert study.over_seeds([one]) == [header, ["a", "5", "full", "0.100", "3.000"]]
    merged = study.over_seeds([one, two])
    assert merged[1] == ["a", "5", "full", "0.200 ± 0.100", "3.000 ± 0.000"]
