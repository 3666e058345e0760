from __future__ import annotations

import importlib
import json
import shutil
import signal
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from calls import before_call
from forked import forked_command

from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.settings import changeable
from pwm.data.store import EpisodeStore
from pwm.models.world_model import KIND, load_world_model, model_meta
from pwm.pretraining.config import HorizonSchedule, PretrainConfig
from pwm.pretraining.learner import WorldModelLearner
from pwm.pretraining.normalization import observation_moments
from pwm.runtime.checkpoint import load_checkpoint, save_checkpoint
from pwm.runtime.run_dir import read_run
from pwm.runtime.training_checkpoints import list_steps

STEPWISE = ("action", "reward", "terminated", "success")


def final_checkpoint(run: Path, step: int = 24) -> dict[str, bytes | dict]:
    """Its tensor files, and its index apart from the settings that a resumed run may change."""
    (path,) = (p for p in list_steps(run / "checkpoints") if p.name == f"step_{step:09d}")
    content: dict[str, bytes | dict] = {f.name: f.read_bytes() for f in path.glob("*.safetensors")}
    index = json.loads((path / "checkpoint.json").read_bytes())
    del index["checksum"]
    for name in ("out", *changeable(PretrainConfig)):
        del index["meta"]["config"][name]
    return {**content, "index": index}


def assert_same_run(ours: Path, theirs: Path, step: int = 24) -> None:
    assert final_checkpoint(ours, step) == final_checkpoint(theirs, step)
    for name in ("metrics.jsonl", "diagnostics.json"):
        assert (ours / name).read_text() == (theirs / name).read_text()


def metric_steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_holds_what_the_readme_promises(toy, toy_world_model):
    run = toy_world_model
    assert metric_steps(run) == list(range(1, 25))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"consistency_loss", "reward_loss", "grad_norm", "lr", "horizon"} <= set(lines[0])
    for line in lines:
        for name in ("consistency_loss", "reward_loss"):
            of_tasks = [line[f"{task}/{name}"] for task in toy.tasks]  # four windows of each
            assert np.mean(of_tasks) == pytest.approx(line[name], rel=1e-5)
    assert [line["horizon"] for line in lines] == [1.0] * 12 + [2.0] * 12
    assert [p.name for p in list_steps(run / "checkpoints")] == ["step_000000020", "step_000000024"]
    assert any((run / "tensorboard").iterdir())
    config = (run / "config.yaml").read_text()
    assert "encoder_dim: 16" in config
    record = read_run(run)
    assert (record["command"], record["seed"], record["finished"]) == ("pretrain", 0, True)
    assert {"torch", "numpy", "mujoco"} <= set(record["versions"])


def test_diagnostics_follow_the_schema(toy, toy_world_model):
    report = json.loads((toy_world_model / "diagnostics.json").read_text())
    assert (report["step"], report["steps"]) == (24, [1, 4, 16])
    assert set(report["tasks"]) == set(toy.tasks)
    for task in report["tasks"].values():
        assert set(task) == {"latent_error", "reward_r2"}
        for figures in task.values():
            assert set(figures) == {"1", "4", "16"}
            assert all(np.isfinite(figure) for figure in figures.values())


def test_the_model_opens_and_knows_its_data(toy, toy_world_model):
    model = load_world_model(toy_world_model)
    assert model.suite.names == toy.tasks
    mean, scale = observation_moments(EpisodeStore.open(toy.data), wrap_angles=True)
    np.testing.assert_array_equal(model.obs_mean.numpy(), mean)
    np.testing.assert_array_equal(model.obs_scale.numpy(), scale)
    by_checkpoint = load_world_model(list_steps(toy_world_model / "checkpoints")[-1])
    obs, task = torch.randn(4, 6), torch.tensor([0, 0, 1, 1])
    assert torch.equal(model.encode(obs, task), by_checkpoint.encode(obs, task))


def test_training_lowers_the_losses(toy, tmp_path):
    assert main(toy.pretrain(tmp_path, "steps=120", "lr=3e-3", "log_every=10")) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["reward_loss"] < 0.7 * lines[0]["reward_loss"]


def test_equal_seeds_give_equal_bytes_and_others_do_not(toy, toy_world_model, tmp_path):
    torch.manual_seed(77)  # of the caller's, which must not matter
    assert main(toy.pretrain(tmp_path / "same")) == 0
    assert_same_run(tmp_path / "same", toy_world_model)
    assert main(toy.pretrain(tmp_path / "other", "seed=1")) == 0
    ours = load_checkpoint(list_steps(tmp_path / "other" / "checkpoints")[-1], "world_model")
    theirs = load_checkpoint(list_steps(toy_world_model / "checkpoints")[-1], "world_model")
    for name in ("encoder.0.weight", "reward_head.2.weight"):
        assert not torch.equal(ours.tensors["model"][name], theirs.tensors["model"][name])


@pytest.mark.parametrize(
    ("threads", "where"), [(1, "data_memory=4"), (4, "data_memory=0.5"), (2, "data_memory=0")]
)
def test_how_batches_are_prepared_does_not_change_the_result(
    threads, where, toy, toy_world_model, tmp_path, monkeypatch
):
    """In any number of threads, from rows in memory or in their files."""
    monkeypatch.setattr("pwm.data.windows.sampler._THREADS", threads)
    assert main(toy.pretrain(tmp_path, where)) == 0
    assert_same_run(tmp_path, toy_world_model)


# --- stopping and going on -----------------------------------------------------------------------


def signal_at(monkeypatch, update: int, signum: int) -> None:
    """Have a signal come in the middle of an update."""
    original, calls = WorldModelLearner.update, 0

    def wrapped(self, batch):
        nonlocal calls
        calls += 1
        if calls == update:
            signal.raise_signal(signum)
        return original(self, batch)

    monkeypatch.setattr(WorldModelLearner, "update", wrapped)


@pytest.mark.parametrize(
    ("signum", "update", "code"), [(signal.SIGUSR1, 7, 138), (signal.SIGINT, 17, 130)]
)
def test_interrupted_and_resumed_equals_uninterrupted(
    signum, update, code, toy, toy_world_model, tmp_path, monkeypatch, capsys
):
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        signal_at(patch, update, signum)
        assert main(toy.pretrain(tmp_path)) == code
    message = capsys.readouterr().err
    assert f"saved at step {update} of 24" in message
    assert "the same command goes on from there" in message
    assert "Traceback" not in message
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before
    assert metric_steps(tmp_path) == list(range(1, update + 1))
    assert not read_run(tmp_path)["finished"]
    assert main(toy.pretrain(tmp_path)) == 0
    assert_same_run(tmp_path, toy_world_model)
    assert read_run(tmp_path)["finished"]


def test_a_signal_in_the_last_update_is_not_lost(
    toy, toy_world_model, tmp_path, monkeypatch, capsys
):
    """Else the quickstart would begin its next stage."""
    with monkeypatch.context() as patch:
        signal_at(patch, 24, signal.SIGTERM)
        assert main(toy.pretrain(tmp_path)) == 143
    assert "saved at step 24 of 24" in capsys.readouterr().err
    assert main(toy.pretrain(tmp_path)) == 0
    assert_same_run(tmp_path, toy_world_model)


def at_call(monkeypatch, place: str, action, call: int = 1) -> None:
    """Have something happen just before a function is called for the ``call``-th time."""
    module, _, name = place.rpartition(".")
    before_call(monkeypatch, importlib.import_module(module), name, action, call)


@pytest.mark.parametrize(
    "place",
    [
        "pwm.pretraining.pretrain.WindowSampler",  # opening the data
        *(
            pytest.param(place, marks=pytest.mark.slow)
            for place in (
                "pwm.pretraining.pretrain.observation_moments",  # reading it through
                "pwm.pretraining.training_loop.MetricsLogger",
            )
        ),
        "pwm.pretraining.training_loop.diagnose",
    ],
)
def test_a_signal_away_from_updates_loses_nothing_but_time(
    place, toy, toy_world_model, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        at_call(patch, place, lambda: signal.raise_signal(signal.SIGTERM))
        assert main(toy.pretrain(tmp_path)) == 143
    message = capsys.readouterr().err
    assert "the same command goes on from there" in message
    assert "Traceback" not in message
    assert main(toy.pretrain(tmp_path)) == 0
    assert_same_run(tmp_path, toy_world_model)


@pytest.mark.parametrize("write", [1, *(pytest.param(i, marks=pytest.mark.slow) for i in (4, 7))])
def test_a_second_signal_stops_even_the_writing_of_a_checkpoint(
    write, toy, toy_world_model, tmp_path, monkeypatch, capsys
):
    """A checkpoint has four files of tensors, so the seventh is of the second one."""
    with monkeypatch.context() as patch:
        signal_at(patch, 7 if write < 6 else 12, signal.SIGTERM)
        second = lambda: signal.raise_signal(signal.SIGTERM)  # noqa: E731
        at_call(patch, "pwm.runtime.checkpoint.write_atomically", second, write)
        assert main(toy.pretrain(tmp_path)) == 143
    assert "stopped at once" in capsys.readouterr().err
    assert not read_run(tmp_path)["finished"]
    kept = [path.name for path in list_steps(tmp_path / "checkpoints")]
    assert kept == ([] if write < 6 else ["step_000000010"])
    assert main(toy.pretrain(tmp_path)) == 0
    assert_same_run(tmp_path, toy_world_model)


def test_a_run_may_be_moved(toy, toy_world_model, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at(patch, 13, signal.SIGTERM)
        assert main(toy.pretrain(tmp_path / "here")) == 143
    (tmp_path / "here").rename(tmp_path / "there")
    assert main(toy.pretrain(tmp_path / "there")) == 0
    assert_same_run(tmp_path / "there", toy_world_model)


@pytest.mark.parametrize("q_and_prior", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_resuming_with_and_without_q_ensemble(q_and_prior, toy, tmp_path, monkeypatch):
    extra = [f"q_and_prior={q_and_prior}", "steps=12", "save_every=5"]
    assert main(toy.pretrain(tmp_path / "whole", *extra)) == 0
    with monkeypatch.context() as patch:
        signal_at(patch, 8, signal.SIGTERM)
        assert main(toy.pretrain(tmp_path / "parts", *extra)) == 143
    torch.manual_seed(5)
    assert main(toy.pretrain(tmp_path / "parts", *extra)) == 0
    assert_same_run(tmp_path / "parts", tmp_path / "whole", 12)


def test_tasks_drawn_by_progress_are_the_same_after_a_stop(toy, tmp_path, monkeypatch):
    """Shares change after updates 10 and 15: with the stop, before it and behind it."""
    extra = ["balance=progress", "balancing.period=5", "balancing.smoothing=0.5", "steps=20"]
    assert main(toy.pretrain(tmp_path / "whole", *extra)) == 0
    for stop in (10, 12):
        with monkeypatch.context() as patch:
            signal_at(patch, stop, signal.SIGTERM)
            assert main(toy.pretrain(tmp_path / f"{stop}", *extra)) == 143
        assert main(toy.pretrain(tmp_path / f"{stop}", *extra)) == 0
        for name in ("metrics.jsonl", "diagnostics.json"):
            ours, theirs = (tmp_path / run / name for run in (f"{stop}", "whole"))
            assert ours.read_text() == theirs.read_text()
    lines = [json.loads(text) for text in ours.with_name("metrics.jsonl").read_text().splitlines()]
    changes = [line["reacher-easy/progress"] for line in lines]
    assert changes[9] == 1 != changes[10] == changes[14] != changes[15]


class Killed(BaseException):
    """Stands for the process ending on the spot."""


@pytest.mark.parametrize(
    "update", [12, *(pytest.param(i, marks=pytest.mark.slow) for i in (3, 24))]
)
def test_a_crash_between_checkpoints_loses_nothing_but_time(
    update, toy, toy_world_model, tmp_path, monkeypatch
):
    original, calls = WorldModelLearner.update, 0

    def dying(self, batch):
        nonlocal calls
        calls += 1
        if calls == update:
            raise Killed
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(WorldModelLearner, "update", dying)
        with pytest.raises(Killed):
            main(toy.pretrain(tmp_path))
    assert main(toy.pretrain(tmp_path)) == 0
    assert metric_steps(tmp_path) == list(range(1, 25))
    assert_same_run(tmp_path, toy_world_model)


def test_a_damaged_newest_checkpoint_is_passed_over(toy, toy_world_model, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        signal_at(patch, 17, signal.SIGTERM)
        assert main(toy.pretrain(tmp_path)) == 143
    newest = list_steps(tmp_path / "checkpoints")[-1]
    next(newest.glob("model*")).write_bytes(b"torn")
    assert main(toy.pretrain(tmp_path)) == 0
    assert_same_run(tmp_path, toy_world_model)


def lines(file: Path) -> int:
    return file.read_text().count("\n") if file.is_file() else 0


def test_a_real_process_is_stopped_then_killed_and_goes_on(toy, tmp_path):
    words, parts = ["steps=100", "save_every=10"], tmp_path / "parts"
    process = forked_command(toy.pretrain(parts, *words), tmp_path / "log")
    process.wait_until(lambda: lines(parts / "metrics.jsonl") >= 12)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert "the same command goes on from there" in process.printed
    assert "Traceback" not in process.printed

    process = forked_command(toy.pretrain(parts, *words), tmp_path / "log")
    process.wait_until(lambda: lines(parts / "metrics.jsonl") >= 30)
    process.kill()
    assert process.wait() == -signal.SIGKILL

    assert main(toy.pretrain(parts, *words)) == 0
    assert metric_steps(parts) == list(range(1, 101))
    assert main(toy.pretrain(tmp_path / "whole", *words)) == 0
    assert final_checkpoint(parts, 100) == final_checkpoint(tmp_path / "whole", 100)
    for name in ("metrics.jsonl", "diagnostics.json"):
        assert (parts / name).read_text() == (tmp_path / "whole" / name).read_text()


# --- the door ------------------------------------------------------------------------------------


def test_a_run_with_other_settings_is_refused(toy, toy_world_model, capsys):
    before = final_checkpoint(toy_world_model)
    assert main(toy.pretrain(toy_world_model, "lr=1e-2", "model.mlp_dim=24")) == 1
    message = capsys.readouterr().err
    assert "lr: 0.0003 -> 0.01" in message
    assert "model.mlp_dim: 16 -> 24" in message
    assert "encoder_dim" not in message  # only what differs
    assert "give another out=" in message
    assert final_checkpoint(toy_world_model) == before


def test_settings_that_do_not_change_the_result_may_change(toy, toy_world_model, tmp_path):
    assert main(toy.pretrain(tmp_path)) == 0
    assert main(toy.pretrain(tmp_path, "log_every=3", "save_every=7", "keep_last=1")) == 0
    assert_same_run(tmp_path, toy_world_model)


def test_resume_never_refuses_a_used_directory(toy, toy_world_model, capsys):
    assert main(toy.pretrain(toy_world_model, "resume=never")) == 1
    assert "resume=never" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("horizon.lengths=[2,40]", "no episode of 41 rows"),  # of the last phase, at the first step
        ("horizon.lengths=[2]", "one entry for each"),
        ("horizon.starts=[0.0,1.0]", "ascend below 1.0"),
        ("horizon.starts=[0.1,0.5]", "must begin with 0.0"),
        ("horizon.lengths=[0,4]", "at least 1"),
        ("steps=0", "steps=0"),
        ("batch_size=0", "batch_size=0"),
        ("seed=-1", "seed"),
        ("log_every=0", "log_every=0"),
        ("save_every=0", "save_every=0"),
        ("diagnose_every=0", "diagnose_every=0"),
        ("keep_last=0", "keep_last=0"),
        ("max_skipped=0", "max_skipped=0"),
        ("lr=-1e-3", "lr=-0.001"),
        ("lr=nan", "lr=nan"),
        ("grad_clip=0", "grad_clip=0"),
        ("rho=1.5", "rho=1.5"),
        ("balance=fair", "unknown balance"),
        ("sampling.recency=2", "sampling.recency=2"),
        ("sampling.surprise=0.5", "give it as init="),
        ("freeze_encoder=true", "give it as init="),
        ("model.latent_dim=20", "simnorm_dim=8 must divide latent_dim=20"),
        ("model.encoder_dim=0", "encoder_dim=0"),
        ("model.num_bins=1", "num_bins=1"),
        ("model.vmax=-20", "vmax"),
        ("suite=walker-run", "no task of suite"),
        ("suite=walker-rum", "walker-run"),
        ("resume=perhaps", "auto or never"),
        ("device=gpu", "device"),
    ],
)
def test_mistakes_are_explained_before_anything_is_written(override, words, toy, tmp_path, capsys):
    assert main(toy.pretrain(tmp_path / "out", override)) == 1
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_two_members_are_needed_for_the_q_ensemble(toy, tmp_path, capsys):
    assert main(toy.pretrain(tmp_path / "out", "q_and_prior=true", "model.num_q=1")) == 1
    assert "num_q" in capsys.readouterr().err


def test_data_without_held_out_episodes_are_refused_at_once(toy, tmp_path, capsys):
    store = EpisodeStore.open(toy.data)
    with EpisodeStore.create(tmp_path / "one", store.suite) as single:
        single.add_source("toy", {})
        for task in toy.tasks:
            single.append(task, [store.episode(task, 0)], "toy")
    assert main([*toy.pretrain(tmp_path / "out"), f"data={tmp_path / 'one'}"]) == 1
    assert "held_out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_of_short_and_of_mixed_episodes_are_fine(toy, tmp_path):
    """The default diagnostics look 16 steps ahead, and these episodes have 12 or fewer."""
    store, out = EpisodeStore.open(toy.data), tmp_path / "out"
    with EpisodeStore.create(tmp_path / "short", store.suite) as short:
        short.add_source("toy", {})
        for task, steps in zip(toy.tasks, ([12, 12, 12], [3, 12, 5]), strict=True):
            for index, count in enumerate(steps):
                whole = store.episode(task, index)
                arrays = {n: getattr(whole, n)[:count] for n in STEPWISE}
                cut = replace(whole, obs=whole.obs[: count + 1], **arrays)
                short.append(task, [cut], "toy")
    assert main([*toy.pretrain(out, "steps=2"), f"data={tmp_path / 'short'}"]) == 0
    found = json.loads((out / "diagnostics.json").read_text())["tasks"]
    assert {name: set(found[name]["latent_error"]) for name in toy.tasks} == {
        name: {"1", "4"} for name in toy.tasks
    }


def test_a_wider_suite_than_the_data_is_fine(toy, tmp_path):
    suite = "suite=[walker-run,reacher-easy,pendulum-swingup]"
    assert main(toy.pretrain(tmp_path, suite, "steps=3")) == 0
    model = load_world_model(tmp_path)
    assert model.suite.names == ("walker-run", *toy.tasks)
    assert (model.suite.obs_dim, model.suite.action_dim) == (24, 6)
    report = json.loads((tmp_path / "diagnostics.json").read_text())
    assert set(report["tasks"]) == set(toy.tasks)


# --- numerical faults ----------------------------------------------------------------------------


def poison(monkeypatch, updates) -> None:
    """Have observations of some updates' batches be NaN."""
    original, calls = WorldModelLearner.update, 0

    def poisoned(self, batch):
        nonlocal calls
        calls += 1
        if calls in updates:
            batch = batch._replace(obs=batch.obs * float("nan"))
        return original(self, batch)

    monkeypatch.setattr(WorldModelLearner, "update", poisoned)


def test_an_update_that_is_not_finite_is_skipped_and_training_goes_on(toy, tmp_path, monkeypatch):
    poison(monkeypatch, (5, 6, 15))
    assert main(toy.pretrain(tmp_path, "q_and_prior=true", "max_skipped=3")) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    skipped = [line["skipped_steps"] for line in lines]
    assert skipped == [0] * 4 + [1] + [2] * 9 + [3] * 10
    assert all(
        np.isfinite(line["reward_loss"]) == (i not in (4, 5, 14)) for i, line in enumerate(lines)
    )
    assert all(p.isfinite().all() for p in load_world_model(tmp_path).parameters())


def test_the_count_of_skipped_updates_survives_a_stop(toy, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        poison(patch, (5, 6, 15))
        assert main(toy.pretrain(tmp_path / "whole")) == 0
    with monkeypatch.context() as patch:
        poison(patch, (5, 6))
        signal_at(patch, 6, signal.SIGTERM)
        assert main(toy.pretrain(tmp_path / "parts")) == 143
    with monkeypatch.context() as patch:
        poison(patch, (15 - 6,))
        assert main(toy.pretrain(tmp_path / "parts")) == 0
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_skipping_too_often_ends_the_run_and_keeps_the_good_checkpoint(
    toy, tmp_path, monkeypatch, capsys
):
    poison(monkeypatch, range(15, 100))
    assert main(toy.pretrain(tmp_path, "max_skipped=4")) == 1
    message = capsys.readouterr().err
    assert "last 4 updates by step 18 were not finite" in message
    assert "lower lr" in message
    assert "Traceback" not in message
    (kept,) = list_steps(tmp_path / "checkpoints")
    assert kept.name == "step_000000010"
    assert main(toy.pretrain(tmp_path, "max_skipped=3")) == 1  # and the same again


def test_weights_that_are_not_finite_are_never_saved(toy, tmp_path, monkeypatch, capsys):
    original, calls = WorldModelLearner.update, 0

    def exploding(self, batch):
        nonlocal calls
        calls += 1
        if calls == 15:
            with torch.no_grad():
                self.model.encoder[0].weight.fill_(float("nan"))
        return original(self, batch)

    monkeypatch.setattr(WorldModelLearner, "update", exploding)
    assert main(toy.pretrain(tmp_path, "q_and_prior=true")) == 1
    message = capsys.readouterr().err
    assert "weights encoder.0.weight are not finite by step 20" in message
    (kept,) = list_steps(tmp_path / "checkpoints")
    assert kept.name == "step_000000010"
    assert all(p.isfinite().all() for p in load_world_model(tmp_path).parameters())


# --- what a checkpoint says ----------------------------------------------------------------------


def test_a_checkpoint_tells_all_that_a_resumed_run_needs(toy, toy_world_model):
    checkpoint = load_checkpoint(list_steps(toy_world_model / "checkpoints")[-1], "world_model")
    meta = checkpoint.meta
    assert meta["step"] == 24
    assert meta["config"]["batch_size"] == 8
    assert meta["config"]["model"]["encoder_dim"] == 16
    assert meta["data"] == json.loads((toy.data / "manifest.json").read_text())["checksum"]
    assert [task["name"] for task in meta["suite"]["tasks"]] == list(toy.tasks)
    assert checkpoint.versions["torch"] == version("torch")
    assert {"model", "optimizer", "random", "skipped"} <= set(checkpoint.tensors)


def test_going_on_with_other_data_is_refused(toy, tmp_path, monkeypatch, capsys):
    data = shutil.copytree(toy.data, tmp_path / "data")
    words = [*toy.pretrain(tmp_path / "run"), f"data={data}"]
    with monkeypatch.context() as patch:
        signal_at(patch, 13, signal.SIGTERM)
        assert main(words) == 143
    with EpisodeStore.open(data, "a") as store:
        store.append(toy.tasks[0], [store.episode(toy.tasks[0], 0)], "toy")
    assert main(words) == 1
    assert "has changed since" in capsys.readouterr().err
    shutil.rmtree(data)
    shutil.copytree(toy.data, data)
    assert main(words) == 0


def test_a_run_without_a_whole_checkpoint_is_no_model_yet(tmp_path):
    (tmp_path / "checkpoints" / "step_000000010").mkdir(parents=True)
    with pytest.raises(PwmError, match="no whole checkpoint yet"):
        load_world_model(tmp_path)
    with pytest.raises(PwmError, match="not a checkpoint"):
        load_world_model(tmp_path / "nowhere")


def test_horizon_phases():
    schedule = HorizonSchedule([2, 4, 8], [0.0, 0.25, 0.5])
    assert list(schedule.phases(0, 100)) == [(0, 25, 2), (25, 50, 4), (50, 100, 8)]
    assert list(schedule.phases(25, 100)) == [(25, 50, 4), (50, 100, 8)]
    assert list(schedule.phases(60, 100)) == [(60, 100, 8)]
    assert list(schedule.phases(100, 100)) == []
    assert list(HorizonSchedule([2, 4], [0.0, 0.01]).phases(0, 10)) == [(0, 10, 4)]


def test_the_papers_settings_are_the_defaults():
    config = PretrainConfig()
    config.validate()
    assert (config.horizon.lengths, config.rho, config.batch_size) == ([16], 0.99, 1024)
    assert (config.lr, config.encoder_lr_scale, config.grad_clip) == (3e-4, 0.3, 20.0)
    loss = config.loss
    assert (loss.consistency, loss.reward, loss.value) == (20.0, 0.1, 0.1)
    with pytest.raises(PwmError):
        HorizonSchedule([], []).validate()


@pytest.mark.usefixtures("keyboard_interrupts")
def test_a_model_trained_on_keeps_its_moments_or_takes_those_of_the_data(
    toy, toy_world_model, tmp_path, monkeypatch
):
    """One of before angles were wrapped; of the toy's tasks one has such an angle."""
    earlier = load_world_model(toy_world_model)
    earlier.obs_mean += 0.5
    earlier.wrap_angles = False
    save_checkpoint(
        tmp_path / "earlier", KIND, {"model": earlier.state_dict()}, model_meta(earlier)
    )
    from_earlier = (f"init={tmp_path / 'earlier'}", "steps=6")
    for how, wraps in (("keep", False), ("widen", False), ("data", True)):
        words = toy.pretrain(tmp_path / how, *from_earlier, f"init_normalization={how}")
        assert main(words) == 0
        trained = load_world_model(tmp_path / how)
        assert trained.wrap_angles == wraps
        moments = earlier.obs_mean, earlier.obs_scale
        if how == "data":
            found = observation_moments(EpisodeStore.open(toy.data), wrap_angles=True)
            moments = tuple(map(torch.from_numpy, found))
        assert torch.equal(trained.obs_mean, moments[0])
        assert torch.equal(trained.obs_scale, moments[1])
    interrupted = toy.pretrain(tmp_path / "again", *from_earlier, "init_normalization=data")
    with monkeypatch.context() as patch:
        signal_at(patch, 4, signal.SIGINT)
        assert main(interrupted) == 130
    assert main(interrupted) == 0
    assert final_checkpoint(tmp_path / "again", 6) == final_checkpoint(tmp_path / "data", 6)


def test_a_frozen_encoder_keeps_the_latents_and_all_else_learns(toy, toy_world_model, tmp_path):
    words = (f"init={toy_world_model}", "steps=6", "freeze_encoder=true")
    assert main(toy.pretrain(tmp_path / "run", *words, "init_normalization=widen")) == 0
    before = load_world_model(toy_world_model).state_dict()
    after = load_world_model(tmp_path / "run").state_dict()
    kept = ("encoder.", "task_emb.", "obs_")
    for name, weight in before.items():
        assert torch.equal(weight, after[name]) == name.startswith(kept), name


@pytest.mark.usefixtures("keyboard_interrupts")
def test_recent_and_surprising_windows_are_the_same_again_after_a_stop(
    toy, toy_world_model, tmp_path, monkeypatch
):
    weighed = ("sampling.recency=0.3", "sampling.surprise=0.4")
    words = (f"init={toy_world_model}", "steps=8", "freeze_encoder=true", *weighed)
    assert main(toy.pretrain(tmp_path / "whole", *words)) == 0
    with monkeypatch.context() as patch:
        signal_at(patch, 5, signal.SIGINT)
        assert main(toy.pretrain(tmp_path / "stopped", *words)) == 130
    assert main(toy.pretrain(tmp_path / "stopped", *words)) == 0
    whole = final_checkpoint(tmp_path / "whole", 8)
    assert final_checkpoint(tmp_path / "stopped", 8) == whole
    assert main(toy.pretrain(tmp_path / "plain", *words[:3])) == 0
    assert final_checkpoint(tmp_path / "plain", 8) != whole
