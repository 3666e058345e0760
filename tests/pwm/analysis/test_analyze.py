"""The command on made-up data: numbers, pictures, groups, going on, mistakes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pwm.analysis import analyze as command
from pwm.analysis.analyze import analyze
from pwm.analysis.config import AnalyzeConfig
from pwm.analysis.summary import summary
from pwm.core.errors import PwmError
from pwm.core.signals import Interrupted
from pwm.core.suites import get_suite
from pwm.models.world_model import KIND, load_world_model, model_meta
from pwm.multitask.groups import read_groups
from pwm.runtime.checkpoint import save_checkpoint


def config(toy: Any, world_model: Path, out: Path, **changes: Any) -> AnalyzeConfig:
    given: dict[str, Any] = {
        "windows": 8, "parts": 2, "transfer_updates": 2, "map_updates": 4, "batch_size": 8,
        "device": "cpu", "compile": "never",
    }  # fmt: skip
    return AnalyzeConfig(str(world_model), str(toy.data), str(out), **(given | changes))


@pytest.fixture(scope="module")
def analyzed(toy, toy_world_model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("analysis")
    analyze(config(toy, toy_world_model, out))
    return out


def test_the_numbers_are_of_the_shapes_that_the_page_names(toy, analyzed):
    found = json.loads((analyzed / "analysis.json").read_text())
    assert found["format"] == 1
    assert found["tasks"] == list(toy.tasks)
    assert set(found["held_out"]) == set(toy.tasks)
    assert {type(value) for value in found["held_out"]["reacher-easy"].values()} == {float}
    assert np.shape(found["embedding"]["places"]) == (2, 2)
    for name in ("cosine", "deviation", "magnitude_similarity"):
        assert np.shape(found["gradients"][name]) == (2, 2)
    assert {"all", "encoder.0", "dynamics.2", "reward_head.0"} < set(found["gradients"]["layers"])
    assert found["transfer"]["updates"] == 2
    assert np.shape(found["transfer"]["gain"]) == (2, 2)
    assert found["data_map"]["from"] == "training"
    assert found["data_map"]["updates"] == [0, 1, 2, 3, 4]
    assert np.shape(found["data_map"]["mean"]) == (2, 8)
    ways = ["embedding", "gradient", "transfer", "data_map", "embodiment"]
    assert list(found["clusters"]) == ways
    for way in ways:
        groups = read_groups(analyzed / "groups" / f"{way}.json")
        assert groups == found["clusters"][way]["groups"]
        assert sorted(name for group in groups for name in group) == sorted(toy.tasks)


def test_the_page_has_every_picture_and_every_finding(analyzed):
    page = (analyzed / "analysis.html").read_text()
    found = json.loads((analyzed / "analysis.json").read_text())
    assert page.count("<svg") == 1 + 2 + 1 + 1 + 4
    for finding in found["findings"]:
        assert finding["found"].split("(")[0] in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_what_was_measured_is_not_measured_again(toy, toy_world_model, analyzed, monkeypatch):
    before = (analyzed / "analysis.json").read_bytes()
    (analyzed / "measured" / "transfer_pendulum-swingup.npz").unlink()
    for name in ("_gradients", "_data_map"):
        monkeypatch.setattr(command, name, lambda *_: pytest.fail("measured again"))
    analyze(config(toy, toy_world_model, analyzed))
    assert (analyzed / "analysis.json").read_bytes() == before
    with pytest.raises(PwmError, match="other settings"):
        analyze(config(toy, toy_world_model, analyzed, windows=9))
    (analyzed / "measured" / "gradients.npz").write_bytes(b"no")
    with pytest.raises(PwmError, match=r"gradients.npz is damaged .* delete it"):
        analyze(config(toy, toy_world_model, analyzed))


def test_the_world_model_is_left_as_it_was(toy, toy_world_model, tmp_path):
    before = load_world_model(toy_world_model).state_dict()
    out = tmp_path / "out"
    analyze(config(toy, toy_world_model, out, transfer_updates=0, map_updates=0))
    found = json.loads((out / "analysis.json").read_text())
    assert found["transfer"] is None
    assert found["data_map"] is None
    assert "Not measured" in (out / "analysis.html").read_text()
    after = load_world_model(toy_world_model).state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_data_maps_are_of_the_checkpoints_that_a_run_kept(toy, toy_world_model, tmp_path):
    with pytest.raises(PwmError, match="keeps 2 checkpoints and a data map needs 3"):
        analyze(config(toy, toy_world_model, tmp_path / "no", map_from="checkpoints"))
    assert not (tmp_path / "no").exists()
    run = tmp_path / "run" / "checkpoints"
    run.mkdir(parents=True)
    newest = max((toy_world_model / "checkpoints").iterdir())
    for step in (10, 20, 24):
        (run / f"step_{step:09d}").symlink_to(newest)
    out = tmp_path / "out"
    analyze(config(toy, run.parent, out, transfer_updates=0))
    found = json.loads((out / "analysis.json").read_text())["data_map"]
    assert found["from"] == "checkpoints"
    assert found["updates"] == [10, 20, 24]
    assert np.max(found["deviation"]) == pytest.approx(0, abs=1e-9)


def test_one_task_has_no_relations(toy, toy_world_model, tmp_path):
    with pytest.raises(PwmError, match="share one task, reacher-easy, and relations"):
        analyze(config(toy, toy_world_model, tmp_path / "out", tasks="reacher-easy"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"windows": 3, "parts": 4}, "windows=3 cannot be divided into parts=4"),
        ({"parts": 1}, "parts"),
        ({"map_from": "log"}, "map_from"),
        ({"transfer_updates": -1}, "transfer_updates"),
        ({"clusters": 0}, "clusters"),
    ],
)
def test_settings_that_cannot_work(toy, toy_world_model, tmp_path, changes, sentence):
    with pytest.raises(PwmError, match=sentence):
        config(toy, toy_world_model, tmp_path / "out", **changes).validate()


def test_transfer_and_groups_of_four_constructed_tasks():
    """Two pairs: updates within a pair halve each other's loss, across they add a tenth."""
    tasks = list(get_suite("walker-run,walker-walk,mw-push,mw-reach"))
    pair = np.array([0, 0, 1, 1])
    same = pair[:, None] == pair
    held_out = np.tile(np.linspace(0.9, 1.1, 6), (4, 1)) * np.array([[1.0], [2.0], [3.0], [4.0]])
    transfer = np.where(same, 0.5, 1.1)[:, :, None] * held_out
    slopes = np.where(same, 1.0, -0.5)[:, None, :, None] * np.ones((4, 2, 4, 2))
    facts = {
        "checkpoint": "model", "data": "data", "tasks": tasks, "held_out": held_out,
        "train": held_out, "embedding": None, "transfer_updates": 3,
        "quality": [{"reward_r2": {"1": 0.9}, "latent_error": {"1": 0.1}}] * 4,
    }  # fmt: skip
    found = summary(facts, {"encoder.0": slopes}, transfer, None, "training", None, "OUT")
    gain = np.where(same, 0.5, -0.1)
    assert np.array(found["transfer"]["gain"]) == pytest.approx(gain)
    assert np.array(found["gradients"]["cosine"]) == pytest.approx(np.where(same, 1.0, -0.5))
    layer = found["gradients"]["layers"]["encoder.0"]
    assert layer["opposed_share"] == pytest.approx(4 / 6)
    assert layer["mean_magnitude_similarity"] == 1.0
    pairs = [["walker-run", "walker-walk"], ["mw-push", "mw-reach"]]
    for way in ("transfer", "gradient", "embodiment"):
        assert found["clusters"][way]["groups"] == pairs
    assert found["clusters"]["transfer"]["embodiment_silhouette"] == pytest.approx(1.0)
    rules = [finding["rule"] for finding in found["findings"]]
    assert rules.count("undertrained") == 4
    assert rules.count("harmed") == rules.count("opposed") == 4
    assert rules.count("helpful") == 2
    assert rules[-1] == "groups"
    json.dumps(found, allow_nan=False)


def test_a_signal_stops_it_after_an_update_and_what_was_measured_is_kept(
    toy, toy_world_model, tmp_path, monkeypatch
):
    """The signal comes while the second task is trained on."""
    after, calls = command.losses_after, []

    def signalled(*arguments: Any) -> np.ndarray:
        calls.append(arguments[2])
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return after(*arguments)

    monkeypatch.setattr(command, "losses_after", signalled)
    with pytest.raises(Interrupted, match="the same command goes on from there"):
        analyze(config(toy, toy_world_model, tmp_path / "out", map_updates=0))
    assert calls == list(toy.tasks)
    kept = sorted(path.stem for path in (tmp_path / "out" / "measured").iterdir())
    assert kept == ["gradients", f"transfer_{toy.tasks[0]}"]


def test_a_world_model_that_diverged_is_told_before_anything_is_measured(
    toy, toy_world_model, tmp_path
):
    model = load_world_model(toy_world_model)
    with torch.no_grad():
        model.task_emb.weight[1] = torch.nan
    save_checkpoint(tmp_path / "model", KIND, {"model": model.state_dict()}, model_meta(model))
    with pytest.raises(PwmError, match="the losses of pendulum-swingup are not finite"):
        analyze(config(toy, tmp_path / "model", tmp_path / "out"))
    assert not (tmp_path / "out" / "measured").exists()
