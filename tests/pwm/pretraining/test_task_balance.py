"""What the learner does with ways of balancing tasks, which have tests of their own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from three_tasks import CONFIG, SIZE, SUITE, make_batch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.data.windows.batch import Batch
from pwm.models.world_model import KIND, WorldModel, model_meta
from pwm.multitask.aggregation import Aggregator
from pwm.multitask.config import Balancing
from pwm.pretraining.config import PretrainConfig
from pwm.pretraining.learner import WorldModelLearner
from pwm.pretraining.losses import LossWeights
from pwm.pretraining.parallel_learner import ParallelLearner
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.checkpoint import load_checkpoint, save_checkpoint
from pwm.runtime.distributed import Ranks

WEIGHTED = ("uncertainty", "gradnorm", "dwa")
WAYS = [{"balance": name} for name in (*WEIGHTED, "progress")]
WAYS += [{"aggregate": "pcgrad"}, {"balance": "dwa", "aggregate": "upgrad"}]


def named(way: dict[str, str]) -> str:
    return " ".join(way.values())


def make_learner(
    q_and_prior: bool = False, passes: int | None = None, seed: int = 0, **changes: object
) -> WorldModelLearner:
    torch.manual_seed(seed)
    model = WorldModel(SIZE, SUITE, q_and_prior)
    with torch.no_grad():  # fresh reward and value heads are zero
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    discount = torch.tensor([task.discount for task in SUITE])
    config = dataclasses.replace(CONFIG, **changes)
    if passes is None:
        return WorldModelLearner(model, config, discount)
    accelerator = Accelerator(torch.device("cpu"))
    return ParallelLearner(model, config, discount, accelerator, Ranks(), passes, seed=0)


def train(learner: WorldModelLearner, first: int, end: int) -> list[dict[str, float]]:
    curve = []
    for step in range(first, end):
        learner.set_learning_rate(step)
        metrics = learner.update(make_batch(step))
        curve.append({name: float(value) for name, value in metrics.items()} | learner.by_task())
        if learner.balance.progress is not None:
            learner.balance.progress.renew(step)
    return curve


def flat_state(learner: WorldModelLearner) -> dict[str, Tensor]:
    return {
        f"{g}/{n}": x.clone() for g, items in learner.tensors().items() for n, x in items.items()
    }


def gradients(learner: WorldModelLearner, batch: Batch) -> Tensor:
    learner._gradients(batch, learner._noise(batch) if learner.model.has_q else None)
    return torch.cat([parameter.grad.flatten() for parameter in learner.trained])


def test_losses_are_reported_of_every_task_that_is_in_a_batch():
    learner, batch = make_learner(), make_batch()
    batch = batch.part(batch.task != 1)
    metrics = learner.update(batch)
    found = learner.by_task()
    names = ("loss", "consistency_loss", "reward_loss")
    assert found.keys() == {f"{task}/{name}" for task in ("narrow", "other") for name in names}
    counts = torch.bincount(batch.task)
    for name in names[1:]:
        total = counts[0] * found[f"narrow/{name}"] + counts[2] * found[f"other/{name}"]
        assert total / len(batch.task) == pytest.approx(metrics[name].item(), rel=1e-5)
    alone = make_learner()
    of_one = alone.update(batch.part(batch.task == 2))
    assert found["other/reward_loss"] == pytest.approx(of_one["reward_loss"].item(), rel=1e-5)
    assert found["other/loss"] == pytest.approx(
        20 * found["other/consistency_loss"] + 0.1 * found["other/reward_loss"], rel=1e-5
    )


@pytest.mark.parametrize("words", [("task", "uniform"), ("rows", "size")])
def test_new_words_for_the_shares_of_a_batch_change_no_update(words):
    learners = [make_learner(balance=word) for word in words]
    curves = [train(learner, 0, 2) for learner in learners]
    assert curves[0] == curves[1]
    states = [flat_state(learner) for learner in learners]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(x, states[1][name]) for name, x in states[0].items())
    assert not any(name.startswith("balance") for name in states[0])


def test_the_gradient_is_that_of_the_weighted_mean():
    learner, plain, batch = make_learner(balance="uncertainty"), make_learner(), make_batch()
    weights = learner.balance.weights
    weights.seen.fill_(True)
    weights.log_variance.data = -torch.tensor([0.5, 1.0, 1.5]).log()
    total = 0
    for k, weight in enumerate((0.5, 1.0, 1.5)):
        own = batch.part(batch.task == k)
        total = total + weight * len(own.task) / len(batch.task) * gradients(plain, own)
    torch.testing.assert_close(gradients(learner, batch), total, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("q_and_prior", [False, True])
def test_task_by_task_gradients_with_equal_weights_are_the_plain_gradient(q_and_prior, monkeypatch):
    monkeypatch.setattr(Aggregator, "weights", lambda self, rows: torch.full((len(rows),), 1 / 3))
    plain, ours = make_learner(q_and_prior), make_learner(q_and_prior, aggregate="upgrad")
    batch, found = make_batch(), []
    for learner in (plain, ours):
        torch.manual_seed(5)
        found.append(gradients(learner, batch))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
    curves = []
    for learner in (plain, ours):
        torch.manual_seed(6)
        curves.append(train(learner, 0, 3))
    for one, other in zip(*curves, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)


def test_an_aggregated_gradient_hurts_no_task():
    rewards = LossWeights(consistency=0.0, reward=1.0)  # far apart, for one reward head
    learner, plain = make_learner(aggregate="upgrad", loss=rewards), make_learner(loss=rewards)
    batch = make_batch(3)
    batch.reward.copy_(torch.tensor([-100.0, 0.0, 100.0])[batch.task].expand_as(batch.reward))
    emb = plain.model.task_emb.weight.numel()
    own = [gradients(plain, batch.part(batch.task == k)) for k in range(3)]
    sizes = [p.numel() for p in plain.trained]
    shared = torch.cat(
        [
            torch.full((n,), p is not plain.model.task_emb.weight)
            for p, n in zip(plain.trained, sizes, strict=True)
        ]
    )
    assert (~shared).sum() == emb
    rows = torch.stack(own)[:, shared]
    assert (rows @ rows.T).min() < 0
    found = gradients(learner, batch)
    scale = rows.norm(dim=1) * rows.norm()
    assert (rows @ found[shared] > -2e-3 * scale).all()
    mean = gradients(plain, batch)
    torch.testing.assert_close(found[~shared], mean[~shared], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found[shared], mean[shared], rtol=1e-2)


@pytest.mark.parametrize("way", WAYS, ids=named)
def test_resuming_is_bit_exact(way, tmp_path):
    whole = make_learner(**way)
    torch.manual_seed(1)
    curve = train(whole, 0, 7)
    half = make_learner(**way)
    torch.manual_seed(1)
    train(half, 0, 4)
    save_checkpoint(tmp_path / "half", KIND, half.tensors(), model_meta(half.model))
    resumed = make_learner(seed=7, **way)
    resumed.load(load_checkpoint(tmp_path / "half", KIND))
    assert train(resumed, 4, 7) == curve[4:]
    ours, theirs = flat_state(resumed), flat_state(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("way", WAYS, ids=named)
def test_passes_do_what_the_whole_batch_does(way):
    curves = []
    for passes in (None, 3):
        learner = make_learner(passes=passes, **way)
        torch.manual_seed(1)
        curves.append(train(learner, 0, 4))
    for one, other in zip(*curves, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("way", WAYS, ids=named)
def test_an_update_that_is_not_finite_changes_nothing(way):
    learner = make_learner(**way)
    train(learner, 0, 3)
    before = flat_state(learner)
    batch = make_batch(9)
    batch.reward[0, 1] = torch.nan
    assert learner.update(batch)["skipped_steps"] == 1
    changed = {
        name
        for name, x in flat_state(learner).items()
        if not torch.allclose(x, before[name], rtol=0, atol=0, equal_nan=True)
    }
    assert changed <= {"skipped/total", "skipped/in_a_row", "random/cpu"}
    learner.update(make_batch(4))
    assert learner.skipped_in_a_row == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"balance": "fair"}, "unknown balance 'fair'"),
        ({"aggregate": "upgrade"}, "unknown aggregate 'upgrade'; did you mean 'upgrad'"),
        ({"balance": "gradnorm", "aggregate": "mgda"}, "balance=gradnorm does not go with"),
        ({"balance": "gradnorm", "parallel": "fsdp"}, "balance=gradnorm does not go with parallel"),
        ({"aggregate": "mgda", "parallel": "fsdp"}, "aggregate=mgda does not go with parallel"),
        ({"balancing": Balancing(smoothing=1.0)}, r"balancing.smoothing=1.0 must be below 1"),
        ({"balancing": Balancing(period=0)}, "balancing.period=0 must be at least 1"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_sentence(changes, sentence, tmp_path):
    config = PretrainConfig(data=str(tmp_path), out=str(tmp_path / "out"), **changes)
    with pytest.raises(PwmError, match=sentence):
        config.validate()
