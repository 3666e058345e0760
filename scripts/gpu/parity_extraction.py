"""Extraction iterations: the GPU follows the CPU, graphs follow eager code, bfloat16 float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gpu.facts import DEVICE, claim, weights
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

from pwm.core.suites import get_suite
from pwm.extraction.config import (
    ActorCriticConfig,
    CriticConfig,
    OptimConfig,
    PriorConfig,
    QConfig,
)
from pwm.extraction.inputs import Inputs, Noise, QInputs, Transitions
from pwm.extraction.learner import ActorCriticLearner
from pwm.models.actor_critic import ActorCriticSize
from pwm.models.world_model import ModelSize, WorldModel

PARTS = ("float32", "bfloat16")
SIZE = ModelSize(encoder_dim=64, mlp_dim=128, latent_dim=64, task_dim=16)
_TASKS, _BATCH, _HORIZON, _STEPS = 3, 64, 4, 8
_EXACT, _ROUNDED = Tolerance(0.02, 1e-3), Tolerance(0.2, 0.05)


def check(wanted: Sequence[str]) -> None:
    """Compare ``float32``, ``bfloat16`` or both."""
    inputs = _inputs()
    comparison = Comparison(lambda name, way: _run(name, way, inputs))
    comparison.add("cpu", CPU)
    comparison.follows("eager", EAGER, "cpu", _EXACT)
    if "float32" in wanted:
        comparison.follows("graph", GRAPH, "eager", _EXACT)
    if "bfloat16" in wanted:
        comparison.follows("eager bfloat16", EAGER_BFLOAT16, "eager", _ROUNDED)
        comparison.follows("graph bfloat16", GRAPH_BFLOAT16, "eager bfloat16", _ROUNDED)


def _config() -> ActorCriticConfig:
    return ActorCriticConfig(
        iterations=_STEPS,
        batch_size=_BATCH,
        horizon=_HORIZON,
        critic=CriticConfig(batches=2),
        networks=ActorCriticSize(actor=[64, 32], critic=[64, 32]),
        optim=OptimConfig(lr_final=0.0),
        prior=PriorConfig(weight=1.0),
        q=QConfig(members=2, hidden=[64, 32], batch_size=_BATCH),
    )


def _inputs() -> list[Inputs]:
    numbers, actions = torch.Generator().manual_seed(1), get_suite("mt80").action_dim
    return [_drawn(numbers, actions) for _ in range(_STEPS)]


def _drawn(numbers: torch.Generator, actions: int) -> Inputs:
    """One iteration's, with what two updates of Q functions take."""

    def states(rows: int) -> torch.Tensor:
        return torch.rand(_TASKS, rows, SIZE.latent_dim, generator=numbers)

    start = states(_BATCH)
    noise = Noise(
        torch.randn(_HORIZON, _TASKS, _BATCH, actions, generator=numbers),
        torch.randperm(_HORIZON * _BATCH, generator=numbers)[None],
    )
    rows = 2 * _BATCH
    action = torch.rand(_TASKS, rows, actions, generator=numbers)
    reward, discount = torch.rand(2, _TASKS, rows, generator=numbers)
    recorded = Transitions(states(rows), action, reward, discount, states(rows))
    of_targets = torch.randn(2, _TASKS, _BATCH, actions, generator=numbers)
    return Inputs(start, noise, q=QInputs(recorded, of_targets))


def _run(name: str, way: Way, inputs: Sequence[Inputs]) -> Run:
    torch.manual_seed(0)
    suite, device = get_suite("mt80"), torch.device(way.device)
    model = WorldModel(SIZE, suite)
    torch.nn.init.normal_(model.reward_head[-1].weight, std=0.05)  # else all rewards are zero
    model = model.to(device).eval().requires_grad_(False)
    learner = ActorCriticLearner(model, suite.tasks[:_TASKS], _config(), 0, way.how.prepare(device))
    learner.begin_iterations()
    assert learner.q is not None
    scheduled, first = (learner.actors, learner.critics), learner.config.warmup_steps
    begun, metrics = weights(*scheduled, learner.q.online), []
    for i, given in enumerate(inputs):
        learner.set_progress(first + i)
        metrics.append(on_cpu(learner.iteration(_moved(given, device))))
    run = Run(begun, weights(*scheduled, learner.q.online), metrics)
    if name.startswith("graph") and DEVICE == "cuda":
        before = weights(*scheduled)
        learner.set_progress(first + _STEPS)  # the learning rates' last value, which is zero
        learner.iteration(_moved(inputs[0], device))
        after = weights(*scheduled)
        same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        claim(f"{name}: a replay obeys the learning rate", same)
    return run


def _moved(inputs: Inputs, device: torch.device) -> Inputs:
    noise = Noise(*(x.to(device) for x in inputs.noise))
    assert inputs.q is not None
    recorded = Transitions(*(x.to(device) for x in inputs.q.transitions))
    q = QInputs(recorded, inputs.q.noise.to(device))
    return Inputs(inputs.start.to(device), noise, q=q)
