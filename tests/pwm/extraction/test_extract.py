from __future__ import annotations

import gc
import io
import json
import signal
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from calls import before_call
from forked import forked_command
from rich.console import Console

import pwm
from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task
from pwm.data.start_states import StatePool
from pwm.data.store import EpisodeStore
from pwm.extraction import extract as extraction
from pwm.extraction.behavior_prior import BehaviorPrior
from pwm.extraction.config import ActorCriticConfig, BCConfig, ExtractConfig
from pwm.extraction.extract import extract
from pwm.extraction.learner import ActorCriticLearner
from pwm.extraction.recorded_states import StartStates
from pwm.models.world_model import load_world_model
from pwm.pretraining.learner import WorldModelLearner
from pwm.runtime import first_step
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.checkpoint import is_checkpoint, read_meta
from pwm.runtime.run_dir import read_run
from pwm.runtime.training_checkpoints import list_steps


def tensor_files(out: Path) -> dict[str, bytes]:
    """The weights of every policy; their config names the directory, which may differ."""
    return {
        f"{path.parent.name}/{path.name}": path.read_bytes() for path in out.glob("*/*.safetensors")
    }


def metrics(out: Path) -> list[dict[str, float]]:
    (file,) = (out / "groups").glob("*/metrics.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def assert_same_result(ours: Path, theirs: Path) -> None:
    assert tensor_files(ours) == tensor_files(theirs)
    assert metrics(ours) == metrics(theirs)


@pytest.fixture(scope="module")
def finished(toy, toy_world_model, tmp_path_factory) -> Path:
    """A finished extraction of both toy tasks; not to be written into."""
    out = tmp_path_factory.mktemp("policies") / "out"
    assert main(toy.extract(toy_world_model, out)) == 0
    return out


@pytest.fixture(scope="module")
def alone(toy, toy_world_model, tmp_path_factory) -> Path:
    """The same policies, each learned in a group of its own; not to be written into."""
    out = tmp_path_factory.mktemp("alone") / "out"
    assert main(toy.extract(toy_world_model, out, "group_size=1")) == 0
    return out


def test_one_policy_a_task(toy, finished):
    for name in toy.tasks:
        policy = pwm.load_policy(finished / name)
        task = policy.task
        assert task.name == name
        obs = np.random.default_rng(0).standard_normal((5, task.obs_dim)).astype(np.float32)
        action = policy.act(obs)
        assert action.shape == (5, task.action_dim)
        assert np.isfinite(action).all()
    assert read_run(finished)["command"] == "extract"
    assert not list((finished / "groups").glob("*/checkpoints/*"))


def test_metrics_are_named_by_task(toy, finished):
    lines = metrics(finished)
    assert [line["step"] for line in lines] == list(range(1, 13))
    for name in toy.tasks:
        assert {f"{name}/imagined_return", f"{name}/critic_loss", f"{name}/bc_loss"} <= set(
            lines[0]
        )


def test_a_policy_reads_what_its_world_model_reads(toy, toy_world_model, finished):
    """Its encoder, task embedding and normalization are the frozen model's."""
    model = load_world_model(toy_world_model)
    policy = pwm.load_policy(finished / "pendulum-swingup")
    obs = torch.randn(6, 3)
    padded = torch.nn.functional.pad(obs, (0, 3))
    z = model.encode(padded, torch.tensor(model.suite.id("pendulum-swingup")))
    torch.testing.assert_close(policy.act(obs), policy.actor(z.unsqueeze(0))[0, :, :1])


def test_made_by_tells_the_settings(finished):
    meta = read_meta(finished / "reacher-easy", "policy")
    assert meta["made_by"]["command"] == "extract"
    assert meta["made_by"]["config"]["learner"]["iterations"] == 12


def test_equal_seeds_give_equal_bytes_and_others_do_not(toy, toy_world_model, finished, tmp_path):
    torch.manual_seed(123)
    assert main(toy.extract(toy_world_model, tmp_path / "same")) == 0
    assert_same_result(tmp_path / "same", finished)
    assert main(toy.extract(toy_world_model, tmp_path / "other", "seed=1")) == 0
    ours, theirs = tensor_files(tmp_path / "other"), tensor_files(finished)
    assert not set(ours.values()) & set(theirs.values())


def load_actor(out: Path, task: str) -> dict[str, torch.Tensor]:
    return dict(pwm.load_policy(out / task).actor.named_parameters())


def test_tasks_alone_give_what_tasks_together_give(toy, finished, alone):
    for task in toy.tasks:
        together = load_actor(finished, task)
        for name, weight in load_actor(alone, task).items():
            torch.testing.assert_close(weight, together[name], rtol=1e-3, atol=1e-5)


def test_tasks_that_have_a_policy_are_skipped(toy, toy_world_model, tmp_path):
    one = "tasks=[reacher-easy]"
    assert main(toy.extract(toy_world_model, tmp_path, one)) == 0
    first = {p: p.stat().st_mtime_ns for p in (tmp_path / "reacher-easy").iterdir()}
    assert not is_checkpoint(tmp_path / "pendulum-swingup")
    assert main(toy.extract(toy_world_model, tmp_path)) == 0
    assert is_checkpoint(tmp_path / "pendulum-swingup")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "reacher-easy").iterdir()} == first
    assert {p.name for p in (tmp_path / "groups").iterdir() if p.is_dir()} == set(toy.tasks)


# --- stopping and going on -----------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the process ending on the spot."""


def disturb(monkeypatch, iteration: int, action, method: str = "iteration") -> None:
    """Have something happen in the middle of an iteration, or of another method's call."""
    before_call(monkeypatch, ActorCriticLearner, method, action, iteration)


@pytest.mark.parametrize(
    ("signum", "iteration", "code"), [(signal.SIGTERM, 3, 143), (signal.SIGINT, 8, 130)]
)
def test_interrupted_and_resumed_equals_uninterrupted(
    signum, iteration, code, toy, toy_world_model, finished, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        disturb(patch, iteration, lambda: signal.raise_signal(signum))
        assert main(toy.extract(toy_world_model, tmp_path)) == code
    message = capsys.readouterr().err
    assert f"2 tasks saved at iteration {iteration} of 12" in message
    assert "Traceback" not in message
    assert not any(is_checkpoint(tmp_path / task) for task in toy.tasks)
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, iteration + 1))
    assert main(toy.extract(toy_world_model, tmp_path)) == 0
    assert_same_result(tmp_path, finished)


def test_a_signal_in_the_last_iteration_stops_before_the_next_group(
    toy, toy_world_model, alone, tmp_path, monkeypatch, capsys
):
    words = toy.extract(toy_world_model, tmp_path, "group_size=1")
    with monkeypatch.context() as patch:
        disturb(patch, 12, lambda: signal.raise_signal(signal.SIGTERM))
        assert main(words) == 143
    assert "extraction of reacher-easy saved at iteration 12 of 12" in capsys.readouterr().err
    assert [is_checkpoint(tmp_path / task) for task in toy.tasks] == [False, False]
    assert main(words) == 0
    assert tensor_files(tmp_path) == tensor_files(alone)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("pwm.extraction.extract.load_world_models", marks=pytest.mark.slow),
        "pwm.extraction.recorded_states.StatePool.draw",
        "pwm.extraction.extract.save_step",
    ],
)
def test_a_signal_away_from_iterations_loses_nothing_but_time(
    place, toy, toy_world_model, finished, tmp_path, monkeypatch, capsys
):
    def stopped(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(place, stopped)
        assert main(toy.extract(toy_world_model, tmp_path)) == 143
    assert "the same command goes on from there" in capsys.readouterr().err
    assert main(toy.extract(toy_world_model, tmp_path)) == 0
    assert_same_result(tmp_path, finished)


def test_a_damaged_newest_checkpoint_is_passed_over(
    toy, toy_world_model, finished, tmp_path, monkeypatch, capfd
):
    words = ["save_every=3", "keep_last=2"]
    with monkeypatch.context() as patch:
        disturb(patch, 8, lambda: signal.raise_signal(signal.SIGTERM))
        assert main(toy.extract(toy_world_model, tmp_path, *words)) == 143
    (group,) = (tmp_path / "groups").glob("*/checkpoints")
    older, newest = list_steps(group)
    assert (older.name, newest.name) == ("step_000000006", "step_000000008")
    next(newest.glob("actors*")).write_bytes(b"torn")
    capfd.readouterr()
    assert main(toy.extract(toy_world_model, tmp_path, *words)) == 0
    assert "Falling back to the one before" in " ".join(capfd.readouterr().err.split())
    assert_same_result(tmp_path, finished)


def test_a_kill_while_a_finished_group_s_checkpoints_are_deleted(
    toy, toy_world_model, finished, tmp_path, monkeypatch
):
    def half(path, *args, **kwargs):
        next(path.glob("actors*")).unlink()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("pwm.runtime.training_checkpoints.shutil.rmtree", half)
        with pytest.raises(Killed):
            main(toy.extract(toy_world_model, tmp_path, "keep_last=5"))
    assert main(toy.extract(toy_world_model, tmp_path)) == 0
    assert_same_result(tmp_path, finished)
    assert not list((tmp_path / "groups").glob("*/checkpoints/*"))


def test_groups_stay_as_they_were_planned(toy, toy_world_model, finished, tmp_path, monkeypatch):
    """Even where nothing was saved yet: how many are learned at once shows in the last bits."""

    def die():
        raise Killed

    with monkeypatch.context() as patch:
        disturb(patch, 2, die)
        with pytest.raises(Killed):
            main(toy.extract(toy_world_model, tmp_path, "group_size=2"))
    assert main(toy.extract(toy_world_model, tmp_path, "group_size=1")) == 0
    assert_same_result(tmp_path, finished)


@pytest.mark.parametrize(
    "iteration", [2, *(pytest.param(i, marks=pytest.mark.slow) for i in (7, 12))]
)
def test_a_crash_loses_nothing_but_time(
    iteration, toy, toy_world_model, finished, tmp_path, monkeypatch
):
    def die():
        raise Killed

    with monkeypatch.context() as patch:
        disturb(patch, iteration, die)
        with pytest.raises(Killed):
            main(toy.extract(toy_world_model, tmp_path))
    assert main(toy.extract(toy_world_model, tmp_path)) == 0
    assert_same_result(tmp_path, finished)


@pytest.mark.parametrize("save_every", [5, pytest.param(500, marks=pytest.mark.slow)])
def test_a_crash_between_two_policies_is_mended(
    save_every, toy, toy_world_model, finished, tmp_path, monkeypatch
):
    from pwm.models.policy import Policy

    original = Policy.save

    def dying(self, path, *args):
        if path.name == "pendulum-swingup":
            raise Killed
        original(self, path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Policy, "save", dying)
        with pytest.raises(Killed):
            main(toy.extract(toy_world_model, tmp_path, f"save_every={save_every}"))
    assert is_checkpoint(tmp_path / "reacher-easy")
    assert main(toy.extract(toy_world_model, tmp_path, f"save_every={save_every}")) == 0
    assert_same_result(tmp_path, finished)


def test_a_real_process_is_killed_and_goes_on(toy, toy_world_model, tmp_path):
    words = ["learner.iterations=40", "save_every=5"]
    command = toy.extract(toy_world_model, tmp_path / "parts", *words)
    process = forked_command(command, tmp_path / "log")
    checkpoints = "groups/*/checkpoints/step_*/checkpoint.json"
    process.wait_until(lambda: list((tmp_path / "parts").glob(checkpoints)))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert main(command) == 0
    assert [line["step"] for line in metrics(tmp_path / "parts")] == list(range(1, 41))
    assert main(toy.extract(toy_world_model, tmp_path / "whole", *words)) == 0
    assert_same_result(tmp_path / "parts", tmp_path / "whole")


# --- fine-tuning the world model -----------------------------------------------------------------

FINETUNE = ("finetune.enabled=true", "finetune.batch_size=8", "finetune.learner.warmup=0")


def test_finetuning_changes_the_encoder_and_leaves_the_given_model(
    toy, toy_world_model, finished, tmp_path
):
    before = {p: p.read_bytes() for p in (toy_world_model / "checkpoints").rglob("*.safetensors")}
    assert main(toy.extract(toy_world_model, tmp_path, *FINETUNE)) == 0
    assert {p: p.read_bytes() for p in before} == before
    for task in toy.tasks:
        tuned = pwm.load_policy(tmp_path / task).encoder[0].weight
        frozen = pwm.load_policy(finished / task).encoder[0].weight
        assert not torch.equal(tuned, frozen)
        assert (tuned - frozen).abs().max() < 0.1


@pytest.fixture(scope="module")
def q_world_model(toy, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("q") / "run"
    assert main(toy.pretrain(out, "q_and_prior=true", "steps=4")) == 0
    return out


@pytest.mark.parametrize("with_q", [pytest.param(False, marks=pytest.mark.slow), True])
def test_finetuning_resumes_bit_for_bit(
    with_q, toy, toy_world_model, q_world_model, tmp_path, monkeypatch
):
    model = q_world_model if with_q else toy_world_model
    words = [*FINETUNE, "tasks=[reacher-easy]", "learner.iterations=8"]
    assert main(toy.extract(model, tmp_path / "whole", *words)) == 0
    with monkeypatch.context() as patch:
        disturb(patch, 7, lambda: signal.raise_signal(signal.SIGTERM))
        assert main(toy.extract(model, tmp_path / "parts", *words)) == 143
    torch.manual_seed(11)
    assert main(toy.extract(model, tmp_path / "parts", *words)) == 0
    assert_same_result(tmp_path / "parts", tmp_path / "whole")


def test_finetuning_with_q_ensemble_leaves_its_target_to_the_average(q_world_model):
    model = load_world_model(q_world_model).train().requires_grad_(True)
    config = ExtractConfig().finetune.learner
    learner = WorldModelLearner(model, config, torch.ones(2))
    trained = {id(p) for p in learner.trained}
    assert not trained & {id(p) for p in model.q_target.parameters()}
    assert {id(p) for p in model.q_ensemble.parameters()} <= trained


# --- remedies for little data --------------------------------------------------------------------


@pytest.fixture(scope="module")
def remedies(toy, tmp_path_factory) -> list[str]:
    """Overrides that switch every remedy on, with a smaller second world model."""
    other = tmp_path_factory.mktemp("other") / "run"
    assert main(toy.pretrain(other, "seed=1", "model.latent_dim=8", "steps=8")) == 0
    return [
        f"ensemble=[{other}]", "learner.bc.awr_temperature=0.5", "learner.critic.real_ratio=0.3",
        "learner.critic.real_steps=4", "learner.bc.warmup_steps=4",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def remedied(toy, toy_world_model, remedies, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("remedied") / "out"
    assert main(toy.extract(toy_world_model, out, *remedies)) == 0
    return out


@pytest.mark.parametrize("remedy", range(3))
def test_every_remedy_changes_what_is_learned(
    remedy, toy, toy_world_model, remedies, finished, tmp_path
):
    assert main(toy.extract(toy_world_model, tmp_path, remedies[remedy])) == 0
    for name, weight in load_actor(tmp_path, "reacher-easy").items():
        if name != "log_std" and not name.endswith("bias"):
            assert not torch.equal(weight, load_actor(finished, "reacher-easy")[name])


@pytest.mark.slow
def test_with_remedies_tasks_alone_give_what_tasks_together_give(
    toy, toy_world_model, remedies, remedied, tmp_path
):
    assert main(toy.extract(toy_world_model, tmp_path, *remedies, "group_size=1")) == 0
    for task in toy.tasks:
        alone, together = load_actor(tmp_path, task), load_actor(remedied, task)
        for name, weight in alone.items():
            torch.testing.assert_close(weight, together[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("tuned", [pytest.param(False, marks=pytest.mark.slow), True])
def test_with_remedies_resuming_is_bit_exact(
    tuned, toy, toy_world_model, remedies, tmp_path, monkeypatch
):
    tuning = FINETUNE if tuned else ()
    words = [*remedies, *tuning, "tasks=[reacher-easy]", "learner.iterations=8"]
    assert main(toy.extract(toy_world_model, tmp_path / "whole", *words)) == 0
    with monkeypatch.context() as patch:
        disturb(patch, 7, lambda: signal.raise_signal(signal.SIGTERM))
        assert main(toy.extract(toy_world_model, tmp_path / "parts", *words)) == 143
    assert main(toy.extract(toy_world_model, tmp_path / "parts", *words)) == 0
    assert_same_result(tmp_path / "parts", tmp_path / "whole")


def test_cloning_before_the_first_iteration_counts_as_steps_and_can_be_stopped(
    toy, toy_world_model, remedies, remedied, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        disturb(patch, 3, lambda: signal.raise_signal(signal.SIGTERM), "bc_update")
        assert main(toy.extract(toy_world_model, tmp_path, *remedies)) == 143
    assert "2 tasks saved at iteration 3 of 16" in capsys.readouterr().err
    assert main(toy.extract(toy_world_model, tmp_path, *remedies)) == 0
    assert_same_result(tmp_path, remedied)
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 17))
    imagines = ["reacher-easy/imagined_return" in line for line in lines]
    assert imagines == [False] * 4 + [True] * 12
    assert all(line["reacher-easy/bc_loss"] > 0 for line in lines)


# --- Q functions and a prior ---------------------------------------------------------------------

OFFLINE = (
    "learner.q.members=2", "learner.q.hidden=[8]", "learner.q.warmup_steps=3",
    "learner.q.batch_size=8", "learner.bc.warmup_steps=2", "learner.prior.weight=1",
)  # fmt: skip


def test_with_q_functions_and_a_prior_resuming_is_bit_exact(
    toy, toy_world_model, tmp_path, monkeypatch, capsys
):
    """Interrupted among the updates of Q alone, and again among the iterations."""
    words = [*OFFLINE, "tasks=[reacher-easy]"]
    assert main(toy.extract(toy_world_model, tmp_path / "whole", *words)) == 0
    for count, method in ((2, "q_update"), (4, "iteration")):
        with monkeypatch.context() as patch:
            disturb(patch, count, lambda: signal.raise_signal(signal.SIGTERM), method)
            assert main(toy.extract(toy_world_model, tmp_path / "parts", *words)) == 143
    assert "saved at iteration 9 of 17" in capsys.readouterr().err
    assert main(toy.extract(toy_world_model, tmp_path / "parts", *words)) == 0
    assert_same_result(tmp_path / "parts", tmp_path / "whole")
    lines = metrics(tmp_path / "parts")
    assert ["reacher-easy/q_loss" in line for line in lines] == [False] * 2 + [True] * 15
    held = [line["reacher-easy/prior_distance"] for line in lines[5:]]
    assert held[0] == 0
    assert min(held[1:]) > 0


def test_a_prior_begins_with_what_init_names(toy, toy_world_model, finished, tmp_path):
    words = toy.extract(
        toy_world_model, tmp_path, f"init={finished}", "learner.prior.weight=1e4",
        "learner.prior.target=null", "tasks=[reacher-easy]",
    )  # fmt: skip
    assert main(words) == 0
    ours, theirs = load_actor(tmp_path, "reacher-easy"), load_actor(finished, "reacher-easy")
    assert not torch.equal(ours["mean.0.weight"], theirs["mean.0.weight"])
    torch.testing.assert_close(ours["mean.0.weight"], theirs["mean.0.weight"], atol=0.01, rtol=0)


@pytest.mark.slow
def test_heads_on_the_encoder_are_an_ensemble(toy, toy_world_model, finished, tmp_path):
    """Of a world model that is the same, bit for bit, as without them."""
    headed, out = tmp_path / "headed", tmp_path / "out"
    assert main(toy.pretrain(headed, "heads.members=3")) == 0
    ours, theirs = (load_world_model(path).state_dict() for path in (headed, toy_world_model))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    words = [
        "learner.ensemble.truncate_above=0.5",
        "learner.q.members=2",
        "learner.q.expectile=0.7",
    ]
    assert main(toy.extract(headed, out, *words, "learner.q.warmup_steps=2", "log_every=1")) == 0
    lines = [json.loads(line) for file in out.rglob("metrics.jsonl") for line in file.open()]
    for task in toy.tasks:
        shares = [line[f"{task}/truncated_rollouts"] for line in lines if f"{task}/value" in line]
        assert shares and all(0 < share <= 1 for share in shares)
        assert any(f"{task}/state_value_loss" in line for line in lines)
    before = load_actor(finished, "reacher-easy")["mean.0.weight"]
    assert not torch.equal(load_actor(out, "reacher-easy")["mean.0.weight"], before)


def test_an_ensemble_of_other_tasks_is_refused(toy, toy_world_model, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(toy.pretrain(other, "suite=[reacher-easy]", "steps=2")) == 0
    words = toy.extract(toy_world_model, tmp_path / "out", f"ensemble=[{other}]")
    capsys.readouterr()
    assert main(words) == 1
    assert "is a world model of other tasks" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "choice",
    [
        ("learner.detach_actor_input=true",),
        ("learner.detach_actor_input=false", "learner.reward_units=real"),
        ("learner.horizon=8", "learner.critic.scale_values=true"),
    ],
)
def test_what_the_paper_leaves_open_can_be_chosen_on_a_model_with_q(
    choice, toy, q_world_model, tmp_path
):
    assert main(toy.extract(q_world_model, tmp_path, *choice, "learner.iterations=4")) == 0
    for task in toy.tasks:
        assert all(weight.isfinite().all() for weight in load_actor(tmp_path, task).values())


# --- start states --------------------------------------------------------------------------------


def test_start_states_are_encoded_observations_of_the_own_task(toy, toy_world_model):
    model = load_world_model(toy_world_model)
    store = EpisodeStore.open(toy.data)
    ids = torch.arange(2)
    pools = [StatePool.draw(store, name, 50, 0, suite=model.suite) for name in toy.tasks]
    obs = torch.stack([pool.obs for pool in pools])
    rows = torch.tensor([[4, 0, 49], [7, 7, 1]])
    wanted = torch.stack([model.encode(obs[k, rows[k]], torch.tensor(k)) for k in range(2)])
    for frozen in (True, False):
        starts = StartStates(model, obs, ids, frozen)
        assert len(starts) == 50
        torch.testing.assert_close(starts[rows], wanted)


def test_what_demonstrations_stray_from_the_prior_is_measured_when_iterations_begin(
    toy, toy_world_model, tmp_path, monkeypatch
):
    found = []
    with monkeypatch.context() as patch:
        renew = BehaviorPrior.renew
        patch.setattr(BehaviorPrior, "renew", lambda *given: (found.append(given), renew(*given)))
        words = ["learner.prior.weight=1", "learner.prior.relative_target=0.5"]
        words += ["learner.bc.warmup_steps=3", "learner.bc.top_fraction=0.5", "learner.bc.weight=0"]
        words += ["learner.optim.actor_lr=0", "learner.optim.lr_final=0"]  # it stays at the clone
        assert main(toy.extract(toy_world_model, tmp_path, *words)) == 0
    ((_, _, spread),) = found
    store = EpisodeStore.open(toy.data)
    for away, name in zip(spread.tolist(), toy.tasks, strict=True):
        pool, task = StatePool.draw(store, name, 64, 0, best=0.5), store.suite[name]
        action = pwm.load_policy(tmp_path / name).act(pool.obs[:, : task.obs_dim].numpy())
        recorded = pool.action[:, : task.action_dim].numpy()
        assert away == pytest.approx(np.square(action - recorded).mean(), rel=1e-4)


# --- the door ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tasks=[walker-run]", "walker-run"),
        ("tasks=[reacher-easi]", "did you mean 'reacher-easy'"),
        ("tasks=5", "5"),
        ("tasks=[]", "no task"),
        ("pool=0", "pool=0"),
        ("group_size=0", "group_size=0"),
        ("log_every=0", "log_every=0"),
        ("save_every=0", "save_every=0"),
        ("seed=-1", "seed=-1"),
        ("learner.critic.batches=5", "must divide"),
        ("learner.critic.iterations=0", "learner.critic.iterations=0 must be at least 1"),
        ("learner.reward_units=euros", "symlog or real"),
        ("learner.horizon=0", "learner.horizon=0"),
        ("learner.bc.top_fraction=2", "learner.bc.top_fraction=2"),
        ("learner.bc.newest_fraction=0", "learner.bc.newest_fraction=0"),
        ("learner.prior.relative_target=0.1", "weight=0 has none; give weight=10"),
        ("learner.bc.awr_temperature=1e-300", "must be at least 1e-06"),
        ("learner.bc.awr_temperature=0", "learner.bc.awr_temperature=0"),
        ("learner.bc.warmup_steps=-1", "learner.bc.warmup_steps=-1"),
        ("learner.bc.lr=-1", "learner.bc.lr=-1"),
        ("learner.ensemble.uncertainty_coef=-1", "learner.ensemble.uncertainty_coef=-1"),
        ("learner.critic.real_ratio=1.5", "learner.critic.real_ratio=1.5"),
        ("learner.critic.real_steps=0", "learner.critic.real_steps=0"),
        ("learner.ensemble.truncate_above=0", "learner.ensemble.truncate_above=0"),
        ("learner.ensemble.truncate_above=2", "give further ones as ensemble="),
        ("ensemble=[nowhere]", "not a checkpoint"),
        ("finetune.batch_size=0", "batch_size=0"),
        ("finetune.learner.lr=-1", "finetune.learner.lr=-1"),
        ("checkpoint=nowhere", "not a checkpoint"),
        ("data=nowhere", "no episode store"),
        ("resume=maybe", "auto or never"),
    ],
)
def test_mistakes_are_explained_before_anything_is_written(
    override, words, toy, toy_world_model, tmp_path, capsys
):
    assert main(toy.extract(toy_world_model, tmp_path / "out", override)) == 1
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_tasks_without_data_are_named(toy, toy_world_model, tmp_path, capsys):
    suite = EpisodeStore.open(toy.data).suite
    EpisodeStore.create(tmp_path / "empty", suite).close()
    words = [f"data={tmp_path / 'empty'}"]
    assert main(toy.extract(toy_world_model, tmp_path / "out", *words)) == 1
    assert "no episodes of reacher-easy, pendulum-swingup" in capsys.readouterr().err


def test_data_of_other_sizes_are_refused(toy, toy_world_model, tmp_path):
    odd = Suite("odd", (Task("reacher-easy", "dmcontrol", 4, 2, 500),))
    store = EpisodeStore.open(toy.data)
    episode = store.episode("reacher-easy", 0)
    episode.obs = episode.obs[:, :4]
    with EpisodeStore.create(tmp_path / "odd", odd) as other:
        other.add_source("toy", {})
        other.append("reacher-easy", [episode], "toy")
    config = ExtractConfig(
        str(toy_world_model), str(tmp_path / "odd"), str(tmp_path / "out"), ["reacher-easy"]
    )
    with pytest.raises(PwmError, match="4 observation"):
        extract(config)


def test_a_run_with_other_settings_is_refused(toy, toy_world_model, finished, capsys):
    before = tensor_files(finished)
    assert main(toy.extract(toy_world_model, finished, "learner.optim.actor_lr=0.5")) == 1
    message = capsys.readouterr().err
    assert "learner.optim.actor_lr: 0.0005 -> 0.5" in message
    assert tensor_files(finished) == before


def test_a_directory_of_another_command_is_refused(toy, toy_world_model, capsys):
    assert main(toy.extract(toy_world_model, toy_world_model)) == 1
    assert "run of `pwm pretrain`" in capsys.readouterr().err
    assert list_steps(toy_world_model / "checkpoints")


def test_nothing_is_left_of_a_group_when_the_next_begins(tmp_path, monkeypatch):
    made = []

    class Cyclic:
        def __init__(self):
            self.own = self
            made.append(weakref.ref(self))

    monkeypatch.setattr(extraction, "_extract_group", lambda group, out: None)
    gc.disable()
    try:
        extraction._extract_and_free(Cyclic, tmp_path)
    finally:
        gc.enable()
    assert [one() for one in made] == [None]


def test_building_is_announced_before_the_first_iteration_and_not_before_cloning(monkeypatch):
    file, steps = io.StringIO(), []
    monkeypatch.setattr(first_step, "console", Console(file=file, width=200))

    def step(number: int) -> dict[str, torch.Tensor]:
        steps.append((number, file.getvalue()))
        return {"actor_grad_norm": torch.ones(1)}

    config = ExtractConfig(learner=ActorCriticConfig(bc=BCConfig(weight=1.0, warmup_steps=2)))
    learner = SimpleNamespace(accelerator=Accelerator(torch.device("cuda"), fused=True))
    group = SimpleNamespace(config=config, learner=learner, step=step)
    forgotten: list[int] = []
    one = extraction._Steps(group, lambda: forgotten.append(len(steps)))
    for number in range(4):
        one(number)
    said = [text for _, text in steps]
    assert said[:2] == ["", ""]
    begins = "building kernels for the iteration: "
    assert said[2].startswith(begins) and "first step" not in said[2]
    assert said[3].count("first step: ") == said[3].count(begins) == 1
    assert forgotten == [3]
