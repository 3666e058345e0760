from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch
from torch import Tensor

from pwm.core.suites import Suite, Task
from pwm.data.windows.sampler import Batch
from pwm.models.world_model import ModelSize, WorldModel
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner
from pwm.pretraining.parallel_learner import ParallelLearner
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.distributed import Ranks

SUITE = Suite("pair", (Task("narrow", "dmcontrol", 3, 1, 20), Task("wide", "metaworld", 5, 2, 20)))
SIZE = ModelSize(encoder_dim=32, mlp_dim=32, latent_dim=32, task_dim=4, num_q=3, num_bins=21)
CONFIG = LearnerConfig(steps=100, lr=1e-3, lr_final=1e-4, warmup=4)


def make_learner(passes: int | None, q_and_prior: bool, dropout: float = 0.0) -> WorldModelLearner:
    """A plain learner, or one that divides batches into passes; the same weights every time."""
    torch.manual_seed(0)
    model = WorldModel(dataclasses.replace(SIZE, dropout=dropout), SUITE, q_and_prior)
    discount = torch.tensor([task.discount for task in SUITE])
    if passes is None:
        return WorldModelLearner(model, CONFIG, discount)
    accelerator = Accelerator(torch.device("cpu"))
    return ParallelLearner(model, CONFIG, discount, accelerator, Ranks(), passes, seed=0)


def make_batch(seed: int, size: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(4, size, 5, generator=generator)
    action = torch.rand(3, size, 2, generator=generator) * 2 - 1
    reward = torch.randn(3, size, generator=generator)
    return Batch(obs, action, reward, torch.arange(size) % 2)


def train(learner: WorldModelLearner, updates: int = 8) -> list[dict[str, float]]:
    torch.manual_seed(1)
    curve = []
    for step in range(updates):
        batch = make_batch(step)
        learner.set_learning_rate(step)
        curve.append({name: float(value) for name, value in learner.update(batch).items()})
    return curve


def weights(learner: WorldModelLearner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}


@cache
def trained_plainly(q_and_prior: bool) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """The curve of a plain learner, and where it ends."""
    plain = make_learner(None, q_and_prior)
    return train(plain, updates=4), weights(plain)


@pytest.mark.parametrize("q_and_prior", [False, True])
@pytest.mark.parametrize("passes", [2, 3, 12])
def test_passes_do_what_the_whole_batch_does(passes, q_and_prior):
    curve, plain = trained_plainly(q_and_prior)
    ours = make_learner(passes, q_and_prior)
    for one, other in zip(train(ours, updates=4), curve, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
    for name, tensor in weights(ours).items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-4, atol=1e-5)


def test_one_rank_and_one_pass_are_the_plain_learner_bit_for_bit():
    plain, ours = make_learner(None, True, dropout=0.1), make_learner(1, True, dropout=0.1)
    assert train(ours) == train(plain)
    assert all(torch.equal(weights(ours)[n], t) for n, t in weights(plain).items())


def test_every_part_of_every_update_has_its_own_dropout():
    curves = [train(make_learner(2, True, dropout=0.5)) for _ in range(2)]
    assert curves[0] == curves[1]
    assert train(make_learner(2, True)) != curves[0]
    learner = make_learner(2, True, dropout=0.5)
    masks = []
    for step, part in ((0, 0), (0, 1), (1, 0)):
        learner.set_learning_rate(step)
        before = torch.get_rng_state()
        with learner._own_stream("loss", part):
            masks.append(torch.rand(100))
        assert torch.equal(torch.get_rng_state(), before)
    assert not any(torch.equal(masks[i], masks[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("q_and_prior", [False, True])
def test_an_update_of_which_one_pass_is_not_finite_is_skipped(q_and_prior):
    learner = make_learner(3, q_and_prior)
    train(learner, 3)
    before = weights(learner)
    batch = make_batch(3)
    batch.reward[0, 5] = torch.nan
    metrics = learner.update(batch)
    assert metrics["skipped_steps"] == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(learner).items())
    learner.update(make_batch(4))
    assert learner.skipped_in_a_row == 0
