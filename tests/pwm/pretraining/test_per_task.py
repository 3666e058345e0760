"""``finetuning.per_task``: low-rank changes of many tasks side by side, as if each were alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from calls import before_call, terminate
from three_tasks import CONFIG, SIZE, SUITE, make_batch
from torch import Tensor

from pwm.adaptation.config import AdaptConfig
from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.data.store import EpisodeStore
from pwm.data.windows.batch import Batch, joined
from pwm.data.windows.sampler import WindowSampler
from pwm.models.policy import load_policy
from pwm.models.widening import EMBEDDING
from pwm.models.world_model import KIND, WorldModel, load_world_model
from pwm.models.world_models import load_world_models
from pwm.multitask.finetuning import Finetuning
from pwm.multitask.importance import keep_only
from pwm.multitask.low_rank import LowRankDeltas
from pwm.multitask.stacked_low_rank import StackedLowRankDeltas
from pwm.pretraining.config import PretrainConfig
from pwm.pretraining.finetune import linear_layers
from pwm.pretraining.learner import WorldModelLearner
from pwm.pretraining.per_task_learner import PerTaskLearner
from pwm.pretraining.targets import Targets
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.checkpoint import load_checkpoint
from pwm.runtime.training_checkpoints import list_steps

CPU = Accelerator(torch.device("cpu"))
DISCOUNT = torch.tensor([task.discount for task in SUITE])
TARGETS = [2, 0]  # not in the order of ids
BASE = {"scale": 0.5}


def make_learner(tasks: list[int], accelerator: Accelerator = CPU) -> WorldModelLearner:
    """Of one task, or of several side by side, all from the same base."""
    torch.manual_seed(0)
    model = WorldModel(SIZE, SUITE)
    with torch.no_grad():  # a fresh reward head is zero
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    torch.manual_seed(1)
    changed = model, linear_layers(model), 2, BASE, [EMBEDDING]
    deltas = (
        LowRankDeltas(*changed)
        if len(tasks) == 1
        else StackedLowRankDeltas(*changed, tasks, SUITE.names)
    )
    weight = model.task_emb.weight.requires_grad_(True)
    keep_only(weight, torch.isin(torch.arange(3), torch.tensor(tasks)).unsqueeze(1))
    if len(tasks) == 1:
        return WorldModelLearner(model, CONFIG, DISCOUNT, accelerator, deltas)
    return PerTaskLearner(model, CONFIG, DISCOUNT, accelerator, deltas)


def batch_of(step: int, task: int) -> Batch:
    batch = make_batch(10 * step + task, 6)
    return batch._replace(task=torch.full((6,), task))


def train(learner: WorldModelLearner, tasks: list[int], updates: int = 5) -> list[dict[str, float]]:
    curve = []
    for step in range(updates):
        learner.set_learning_rate(step)
        learner.update(joined([batch_of(step, task) for task in tasks]))
        curve.append(learner.by_task())
    return curve


def own(state: dict[str, Tensor], task: int, number: int | None = None) -> dict[str, Tensor]:
    """What is of a task in a checkpoint, which has those of several stacked."""
    found = {EMBEDDING: state[EMBEDDING][task]}
    for name, tensor in state.items():
        if name != EMBEDDING:
            found[name] = tensor if number is None else tensor[number]
    return found


def require_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("fused", [False, True])
def test_tasks_side_by_side_learn_what_each_does_alone(fused):
    accelerator = Accelerator(CPU.device, fused=fused)
    together = make_learner(TARGETS, accelerator)
    untouched = together.model.task_emb.weight[1].clone()
    curve = train(together, TARGETS)
    for number, task in enumerate(TARGETS):
        alone = make_learner([task], accelerator)
        begun = own({k: v.clone() for k, v in alone.changes.state_dict().items()}, task)
        for found, wanted in zip(curve, train(alone, [task]), strict=True):
            for name, value in wanted.items():
                assert found[name] == pytest.approx(value, rel=1e-4), name
        ours, theirs = together.changes.state_dict(), own(alone.changes.state_dict(), task)
        require_close(own(ours, task, number), theirs)
        for name, tensor in theirs.items():
            assert not torch.allclose(tensor, begun[name], atol=1e-4), name
    assert torch.equal(together.model.task_emb.weight[1], untouched)


def test_held_out_windows_may_be_of_any_tasks_in_any_order():
    learner = make_learner(TARGETS)
    train(learner, TARGETS, 2)
    base = make_learner([1])
    batch = make_batch(5, 9)
    with learner.changes.of_tasks(batch.task):
        rewards = learner.model.symlog_reward(
            learner.model.encode(batch.obs[0], batch.task), batch.action[0], batch.task
        )
    merged = [make_learner([task]) for task in TARGETS]
    for number, alone in enumerate(merged):
        state = learner.changes.state_dict()
        alone.changes.load_state_dict(
            {name: x if name == EMBEDDING else x[number] for name, x in state.items()}
        )
    for task, alone in [*zip(TARGETS, merged, strict=True), (1, base)]:
        rows = (batch.task == task).nonzero().squeeze(1)
        ids, model = batch.task[rows], alone.model
        wanted = model.symlog_reward(
            model.encode(batch.obs[0, rows], ids), batch.action[0, rows], ids
        )
        torch.testing.assert_close(rewards[rows], wanted, rtol=1e-4, atol=1e-5)


def test_a_task_that_is_not_finite_spoils_no_other():
    learner, clean = make_learner(TARGETS), make_learner(TARGETS)
    train(clean, TARGETS, 3)
    for step in range(3):
        learner.set_learning_rate(step)
        bad = batch_of(step, TARGETS[1])
        bad.obs[0, 0] = torch.nan
        learner.update(joined([batch_of(step, TARGETS[0]), bad]))
    ours, theirs = (x.changes.state_dict() for x in (learner, clean))
    require_close(own(ours, TARGETS[0], 0), own(theirs, TARGETS[0], 0))
    assert all(tensor.isfinite().all() for tensor in ours.values())
    assert int(learner.skipped) == 0 and int(learner.skipped_in_a_row) == 3
    learner.update(joined([batch_of(9, task) for task in TARGETS]))
    assert int(learner.skipped_in_a_row) == 0


def test_each_target_gets_the_windows_that_it_gets_alone(toy):
    def targets(names: object, per_task: bool) -> Targets:
        config = PretrainConfig(
            data=str(toy.data), init="it", finetune="lora", target=names, steps=3,
            finetuning=Finetuning(per_task=per_task),
        )  # fmt: skip
        return Targets(config, WindowSampler(EpisodeStore.open(toy.data), 2, 4, 0))

    together = targets("all", per_task=True)
    assert together.ids == [0, 1]
    alone = [targets(name, per_task=False) for name in toy.tasks]
    batches = [list(one.batches(0, 3, 2)) for one in (together, *alone)]
    for both, *each in zip(*batches, strict=True):
        assert both.task.tolist() == [0] * 4 + [1] * 4
        for ours, theirs in zip(both, joined(each), strict=True):
            assert ours is theirs is None or torch.equal(ours, theirs)


def newest(run: Path) -> dict[str, dict[str, Tensor]]:
    return load_checkpoint(list_steps(run / "checkpoints")[-1], KIND).tensors


def words_for(toy, base: Path, out: Path, *words: str) -> list[str]:
    return toy.pretrain(
        out, f"init={base}", "finetune=lora", "steps=6", "batch_size=4",
        "horizon.lengths=[2]", "horizon.starts=[0.0]", *words,
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_of_all_goes_on_to_the_same_bits_and_opens_as_one_each(
    toy, toy_world_model, tmp_path
):
    every = ["target=all", "finetuning.per_task=true"]
    whole = tmp_path / "whole"
    assert main(words_for(toy, toy_world_model, whole, *every)) == 0
    models = load_world_models(whole)
    assert models.suite.names == toy.tasks
    name = toy.tasks[1]
    assert main(words_for(toy, toy_world_model, tmp_path / "one", f"target={name}")) == 0
    found = load_world_model(whole, tasks=[name]).state_dict()
    wanted = load_world_model(tmp_path / "one").state_dict()
    for state in (found, wanted):
        state[EMBEDDING] = state[EMBEDDING][1]
    require_close(found, wanted)
    assert all(
        torch.equal(x, found[n]) or n == EMBEDDING for n, x in models.of(name).state_dict().items()
    )
    assert "encoder.0.weight" not in newest(whole)["model"]
    of_estimate = ["expected_score=true", "estimate.features=8", "estimate.rows=100"]
    extracted = toy.extract(whole, tmp_path / "policies", "learner.iterations=2", *of_estimate)
    assert main(extracted) == 0
    plan = json.loads((tmp_path / "policies" / "groups" / "plan.json").read_bytes())
    assert plan == [list(toy.tasks)]
    for task in toy.tasks:
        policy, model = load_policy(tmp_path / "policies" / task), models.of(task)
        assert policy.encoder is not None
        for tensor_name, tensor in policy.encoder.state_dict().items():
            assert torch.equal(tensor, model.encoder.state_dict()[tensor_name])
    stopped = words_for(toy, toy_world_model, tmp_path / "stopped", *every)
    with pytest.MonkeyPatch.context() as patch:
        before_call(patch, WorldModelLearner, "update", terminate, 3)
        assert main(stopped) == 143
    assert main(stopped) == 0
    for group, tensors in newest(whole).items():
        for tensor_name, tensor in tensors.items():
            assert torch.equal(newest(tmp_path / "stopped")[group][tensor_name], tensor)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"finetune": "full"}, "is of finetune=lora"),
        ({"replay": 0.25}, "without replay="),
        ({"balance": "gradnorm"}, "nothing to balance"),
        ({"aggregate": "upgrad"}, "nothing to balance"),
    ],
)
def test_mistakes_are_one_sentence(settings, sentence, toy, tmp_path):
    good = {"init": str(toy.data), "finetune": "lora", "target": "all"}
    config = PretrainConfig(
        data=str(toy.data), out=str(tmp_path / "out"), finetuning=Finetuning(per_task=True),
        **(good | settings),
    )  # fmt: skip
    with pytest.raises(PwmError, match=sentence):
        config.validate()


def test_adaptation_takes_one_task_at_a_time(toy, tmp_path):
    config = AdaptConfig(
        task="walker-run", data=str(toy.data), checkpoint=str(toy.data), out=str(tmp_path / "out"),
        finetune="lora", finetuning=Finetuning(per_task=True),
    )  # fmt: skip
    with pytest.raises(PwmError, match="one task at a time"):
        config.validate()
