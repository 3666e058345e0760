from __future__ import annotations

import json

import finetuning_study
import pytest

from pwm.cli.main import main as pwm


@pytest.fixture
def base(toy, tmp_path):
    """A world model of one seed."""
    assert not pwm(toy.pretrain(tmp_path / "base" / "seed_0", "steps=2"))
    return tmp_path / "base"


@pytest.mark.slow
def test_each_task_is_judged_by_its_own_model_and_made_once(toy, base, tmp_path, capsys):
    out = tmp_path / "tuned"
    settings = [word for word in toy.pretrain(tmp_path)[3:] if not word.startswith("steps=")]
    given = [str(toy.data), str(out), "--base", str(base), "--seeds", "1", "steps=2", *settings]
    given += ["--tasks", *toy.tasks, "--ways", "none", "longer", "full", "lora"]
    finetuning_study.main(given)
    table = (out / "table.md").read_text()
    assert table in capsys.readouterr().out
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in table.splitlines()[2:]}
    assert list(rows) == ["none", "longer", "full", "lora"]
    assert rows["none"][-1].strip() == "0"
    for way, name in (("full", toy.tasks[0]), ("full", toy.tasks[1]), ("lora", "all")):
        config = (out / way / "seed_0" / name / "config.yaml").read_text()
        assert f"finetune: {way}" in config and f"init: {base}/seed_0" in config
    of_tasks = [
        json.loads((out / "full" / "seed_0" / task / "diagnostics.json").read_bytes())["tasks"][
            task
        ]
        for task in toy.tasks
    ]
    worst = max(list(of["latent_error"].values())[-1] for of in of_tasks)
    assert rows["full"][4].strip() == f"{worst:.3f}"
    (made,) = (out / "lora/seed_0/all/checkpoints").glob("step_*/checkpoint.json")
    before = made.stat().st_mtime_ns
    finetuning_study.main(given)
    assert made.stat().st_mtime_ns == before


def test_tasks_share_a_run_where_they_do_not_meet():
    assert finetuning_study.runs("lora", ["a", "b"]) == [["a", "b"]]
    assert finetuning_study.runs("switch", ["a", "b"]) == [["a"], ["b"]]
    assert finetuning_study.words("longer", ["a"]) == []
    assert finetuning_study.words("lora", ["a", "b"]) == [
        "finetune=lora", "target=[a,b]", "finetuning.per_task=true"
    ]  # fmt: skip


def test_settings_that_are_taken_for_tasks_are_refused(toy, tmp_path, capsys):
    given = [str(toy.data), str(tmp_path / "out"), "--base", str(tmp_path)]
    with pytest.raises(SystemExit):
        finetuning_study.main([*given, "--tasks", toy.tasks[0], "steps=2"])
    message = f"{toy.data} has no tasks steps=2; settings are given before --tasks."
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
