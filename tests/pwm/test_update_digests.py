"""Fifty updates of both learners against recorded digests: a change that says that it keeps the
numbers keeps them.

They were recorded again where sums came to be added up in another order: expectations over bins as
sums of products (the sums of absolute values below moved by less than 5e-8 of themselves), and the
gradients of actors as one product over all steps, of task embeddings as one of all
uses (less than 2e-7).

The bytes are those of one kind of processor and one version of torch; elsewhere matrix products
round otherwise, and the sums of absolute values are compared with a tolerance instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs import changed
from pwm.core.suites import get_suite
from pwm.data.windows.batch import Batch
from pwm.extraction.config import ActorCriticConfig
from pwm.extraction.inputs import Demonstrations, Inputs, Transitions
from pwm.extraction.learner import ActorCriticLearner
from pwm.models.actor_critic import ActorCriticSize
from pwm.models.world_model import ModelSize, WorldModel
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "update_digests.json").read_text())
SUITE = get_suite(["reacher-easy", "pendulum-swingup", "walker-run"])
SIZE = ModelSize(encoder_dim=24, mlp_dim=32, latent_dim=16, task_dim=8, num_q=3, num_bins=21)
UPDATES, WINDOWS, HORIZON = 50, 12, 4
EXTRACTIONS = {
    "plain": {},
    "paper": {
        "critic": {"iterations": 3, "scale_values": True},
        "detach_actor_input": False,
        "return_decay": 0.9,
        "reward_units": "real",
    },
    "remedies": {
        "bc": {"weight": 1.0, "weight_final": 0.1, "warmup_steps": 10},
        "critic": {"real_ratio": 0.3},
    },
}

Groups = Mapping[str, Mapping[str, Tensor]]


def make_model(seed: int, **options) -> WorldModel:
    torch.manual_seed(seed)
    return WorldModel(SIZE, SUITE, **options)


def make_frozen_model(seed: int) -> WorldModel:
    return make_model(seed).eval().requires_grad_(False)


def randomize_rewards(model: WorldModel) -> None:
    for parameter in model.reward_head[-1].parameters():
        parameter.data.normal_(std=0.3)


def pretraining(q_and_prior: bool) -> Groups:
    model = make_model(1, q_and_prior=q_and_prior, normalize_obs=True)
    discount = torch.tensor([task.discount for task in SUITE])
    learner = WorldModelLearner(model, LearnerConfig(steps=UPDATES, warmup=5), discount)
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(3)
    for step in range(UPDATES):
        task = torch.randint(3, (WINDOWS,), generator=generator)
        obs = torch.randn(HORIZON + 1, WINDOWS, SUITE.obs_dim, generator=generator)
        action = torch.rand(HORIZON, WINDOWS, SUITE.action_dim, generator=generator) * 2 - 1
        reward = torch.rand(HORIZON, WINDOWS, generator=generator)
        learner.set_learning_rate(step)
        learner.update(Batch(obs, action, reward, task))
    return learner.tensors()


def extraction(changes: dict) -> Groups:
    warmup = changes.get("bc", {}).get("warmup_steps", 0)
    config = changed(
        ActorCriticConfig(),
        iterations=UPDATES - warmup,
        batch_size=8,
        horizon=HORIZON,
        networks=ActorCriticSize(actor=[24, 16], critic=[24]),
        **changes,
    )
    model = make_frozen_model(1)
    torch.manual_seed(11)
    randomize_rewards(model)
    ensemble = [make_frozen_model(2)] if warmup else []
    for other in ensemble:
        randomize_rewards(other)
    learner = ActorCriticLearner(model, SUITE.tasks, config, 5, ensemble=ensemble)
    generator = torch.Generator().manual_seed(9)

    def rand(*shape: int) -> Tensor:
        return torch.rand(3, 8, *shape, generator=generator)

    for step in range(UPDATES):
        learner.set_progress(step)
        shown = None
        if config.bc.needs_demonstrations:
            shown = Demonstrations(rand(SIZE.latent_dim), rand(SUITE.action_dim) * 2 - 1)
        if step < warmup:
            learner.bc_update(shown)
            continue
        start, there = rand(SIZE.latent_dim), tuple(rand(SIZE.latent_dim) for _ in ensemble)
        recorded = None
        if warmup:
            state, reward = rand(SIZE.latent_dim), rand()
            discount, after = torch.full((3, 8), 0.99), rand(SIZE.latent_dim)
            recorded = Transitions(state, torch.zeros(3, 8, 1), reward, discount, after)
        learner.iteration(Inputs(start, learner.noise(), shown, recorded, there))
    return learner.tensors()


def run(name: str) -> Groups:
    kind, _, variant = name.partition(" ")
    if kind == "pretraining":
        return pretraining(q_and_prior=variant == "with Q")
    return extraction(EXTRACTIONS[variant])


def digest(groups: Groups) -> str:
    sha = hashlib.sha256()
    for group in sorted(set(groups) - {"random"}):
        for name, tensor in sorted(groups[group].items()):
            sha.update(f"{group}/{name}{tuple(tensor.shape)}".encode())
            sha.update(tensor.detach().contiguous().numpy().tobytes())
    return sha.hexdigest()


def processor() -> str:
    lines = Path("/proc/cpuinfo")
    names = lines.read_text().splitlines() if lines.is_file() else []
    model = next(
        (line.split(":")[1].strip() for line in names if line.startswith("model name")), ""
    )
    return f"{torch.backends.cpu.get_cpu_capability()} {model}"


@pytest.mark.parametrize("name", RECORDED["runs"])
def test_fifty_updates_give_what_they_gave(name):
    groups, recorded = run(name), RECORDED["runs"][name]
    for group, total in recorded["sums"].items():
        found = sum(float(tensor.double().abs().sum()) for tensor in groups[group].values())
        assert found == pytest.approx(total, rel=2e-3), group
    if (RECORDED["torch"], RECORDED["cpu"]) == (torch.__version__, processor()):
        assert digest(groups) == recorded["digest"]
