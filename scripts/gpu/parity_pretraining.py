"""Pretraining updates with Q and prior: the GPU follows the CPU, graphs follow eager code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gpu.facts import DEVICE, claim, part, weights
from gpu.parity import (
    CPU,
    EAGER,
    EAGER_BFLOAT16,
    GRAPH,
    GRAPH_BFLOAT16,
    Comparison,
    Run,
    Tolerance,
    Way,
    on_cpu,
)
from roofline import random_batch
from torch import Tensor

from pwm.core.suites import get_suite
from pwm.data.windows.sampler import Batch
from pwm.models.math import bin_centers, expected_bin, two_hot
from pwm.models.world_model import ModelSize, WorldModel
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner
from pwm.pretraining.losses import PriorNoise

PARTS = ("decoding", "float32", "bfloat16", "replays")
_HORIZON, _WINDOWS, _STEPS = 4, 64, 8
_EXACT, _ROUNDED = Tolerance(0.05, 2e-3), Tolerance(0.3, 0.1)


def check(wanted: Sequence[str]) -> None:
    """Check some of PARTS."""
    if "decoding" in wanted:
        with part("decoding"):
            _decoding()
    if "float32" in wanted or "bfloat16" in wanted:
        torch.manual_seed(3)
        suite = get_suite("mt80")
        cpu = torch.device("cpu")
        batches = [random_batch(suite, _HORIZON, _WINDOWS, cpu) for _ in range(_STEPS)]
        noises = [_noise(suite.action_dim) for _ in range(_STEPS)]
        comparison = Comparison(lambda name, way: _run(name, way, batches, noises))
        comparison.add("cpu", CPU)
        comparison.follows("eager", EAGER, "cpu", _EXACT)
        if "float32" in wanted:
            comparison.follows("graph", GRAPH, "eager", _EXACT)
        if "bfloat16" in wanted:
            comparison.follows("eager bfloat16", EAGER_BFLOAT16, "eager", _ROUNDED)
            comparison.follows("graph bfloat16", GRAPH_BFLOAT16, "eager bfloat16", _ROUNDED)
    if "replays" in wanted and DEVICE == "cuda":
        with part("replays"):
            _replays()


def _noise(actions: int) -> PriorNoise:
    return PriorNoise(
        torch.randn(_HORIZON, _WINDOWS, actions),
        torch.randn(_HORIZON + 1, _WINDOWS, actions),
        torch.randint(5, (4,)),
    )


def _learner(way: Way, config: LearnerConfig, dropout: float) -> WorldModelLearner:
    torch.manual_seed(0)
    suite, device = get_suite("mt80"), torch.device(way.device)
    size = ModelSize(encoder_dim=64, mlp_dim=128, latent_dim=64, task_dim=16, dropout=dropout)
    discount = torch.tensor([task.discount for task in suite], device=device)
    model = WorldModel(size, suite, q_and_prior=True).to(device)
    return WorldModelLearner(model, config, discount, way.how.prepare(device))


def _update(learner: WorldModelLearner, batch: Batch, noise: PriorNoise) -> dict[str, Tensor]:
    device = learner.discount.device
    learner._noise = lambda _: PriorNoise(*(x.to(device) for x in noise))
    return on_cpu(learner.update(batch.to(device)))


def _run(name: str, way: Way, batches: Sequence[Batch], noises: Sequence[PriorNoise]) -> Run:
    learner = _learner(way, LearnerConfig(steps=100, warmup=1), dropout=0.0)
    begun, metrics = weights(learner.model), []
    for i, (batch, noise) in enumerate(zip(batches, noises, strict=True)):
        learner.set_learning_rate(i)
        metrics.append(_update(learner, batch, noise))
    run = Run(begun, weights(learner.model), metrics)
    names = [n for n, _ in learner.model.named_parameters()]
    pairs = zip(names, begun, run.ended, strict=True)
    still = [n for n, a, b in pairs if n.startswith("encoder") and torch.equal(a, b)]
    claim(f"{name}: the encoder is trained", not still, still=still)
    if name.startswith("graph") and DEVICE == "cuda":
        broken = batches[0]._replace(reward=batches[0].reward * float("nan"))
        skipped = int(_update(learner, broken, noises[0])["skipped_steps"])
        after = weights(learner.model)
        same = all(torch.equal(a, b) for a, b in zip(run.ended, after, strict=True))
        claim(f"{name}: a replay skips a batch of NaN", same and skipped == 1, skipped=skipped)
    return run


def _replays() -> None:
    """A graph draws fresh dropout, and another horizon is captured anew."""
    learner = _learner(GRAPH, LearnerConfig(lr=0.0, lr_final=0.0), dropout=0.5)
    learner.set_learning_rate(0)  # weights stay as they are, so that dropout alone can differ
    torch.nn.init.normal_(learner.model.q_ensemble[-1].weight, std=0.1)  # they begin as zeros
    torch.manual_seed(3)
    batch = random_batch(learner.model.suite, _HORIZON, _WINDOWS, torch.device("cpu"))
    noise = _noise(batch.action.shape[-1])
    values = [float(_update(learner, batch, noise)["value_loss"]) for _ in range(8)]
    claim("replays draw fresh dropout", len(set(values[4:])) > 1, values=values[4:])
    short = batch._replace(obs=batch.obs[:-1], action=batch.action[:-1], reward=batch.reward[:-1])
    less = PriorNoise(noise.target[:-1], noise.policy[:-1], noise.members)
    for _ in range(6):
        last = _update(learner, short, less)
    finite = all(value.isfinite().all() for value in last.values())
    claim("another horizon is captured anew", finite)


def _decoding() -> None:
    """Values decode to float32 from float32 logits, also where products run in bfloat16."""
    centers = bin_centers(101, -10, 10, DEVICE)
    truth = torch.linspace(1, 900, 2000, device=DEVICE)
    logits = two_hot(truth, centers).clamp(min=1e-30).log()
    with EAGER_BFLOAT16.how.prepare(torch.device(DEVICE)).arithmetic():
        decoded = expected_bin(logits, centers)
    off = float((torch.expm1(decoded.float()) / truth - 1).abs().max())
    exact = decoded.dtype == torch.float32 and off < 1e-3
    claim("values are decoded in float32", exact, off=off, dtype=str(decoded.dtype))
