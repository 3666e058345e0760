"""A small learner whose values are Q functions of recorded transitions, and what it takes."""

from __future__ import annotations

import torch
from torch import Tensor

from configs import changed
from pwm.core.suites import Suite, Task
from pwm.extraction.config import ActorCriticConfig, CriticConfig
from pwm.extraction.inputs import Inputs, QInputs, Transitions
from pwm.extraction.learner import ActorCriticLearner
from pwm.extraction.offline_settings import QConfig
from pwm.models.actor_critic import ActorCriticSize
from pwm.models.world_model import ModelSize, WorldModel

SUITE = Suite("two", (Task("a", "dmcontrol", 3, 1, 20), Task("b", "dmcontrol", 4, 2, 20)))
SIZE = ModelSize(
    encoder_dim=12, mlp_dim=12, latent_dim=16, task_dim=4, num_bins=11, vmin=-3, vmax=3
)
CONFIG = ActorCriticConfig(
    iterations=20,
    batch_size=6,
    horizon=3,
    discount=0.9,
    networks=ActorCriticSize(actor=[6, 5], critic=[5], critics=2),
    critic=CriticConfig(batches=3),
    q=QConfig(members=2, hidden=[7], warmup_steps=2, updates=2, batch_size=4),
)
HELD = {"weight": 3.0, "target": 0.01}


def make_learner(tasks=SUITE.tasks, seed: int = 0, double: bool = False, **changes):
    torch.manual_seed(0)
    model = WorldModel(SIZE, SUITE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    model.eval().requires_grad_(False)
    model = model.double() if double else model
    learner = ActorCriticLearner(model, tasks, changed(CONFIG, **changes), seed)
    nets = [learner.actors, learner.critics, *([learner.q.online] if learner.q else [])]
    with torch.no_grad():  # fresh networks are so near zero that little can be seen
        for k, task in enumerate(learner.tasks):
            torch.manual_seed(SUITE.id(task.name) + 100)
            for net in nets:
                for parameter in net.parameters():
                    own = parameter.view(len(learner.tasks), -1)[k]
                    own.add_(0.3 * torch.randn_like(own))
    for net in nets if double else ():
        net.double()
    if learner.q is not None:
        learner.q.target.to(learner.q.online.value.dtype)
        learner.q.begin()
    return learner


def latents(rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows, 2, 8, generator=generator).softmax(-1).flatten(2)


def make_q_inputs(learner: ActorCriticLearner, steps: int, seed: int = 3) -> QInputs:
    rows = steps * learner.config.q.batch_size
    generator = torch.Generator().manual_seed(seed)
    action = torch.rand(2, rows, 2, generator=generator) * learner.actors.action_mask.unsqueeze(1)
    reward, discount = torch.rand(2, 2, rows, generator=generator)
    recorded = Transitions(latents(rows, 1), action, reward, discount, latents(rows, 2))
    return QInputs(recorded, learner.q_noise(steps))


def iterate(learner: ActorCriticLearner, first: int, end: int) -> list[dict[str, Tensor]]:
    made = []
    for step in range(first, end):
        learner.set_progress(step)
        rows = learner.sample(40)
        start = torch.stack([pool[r] for pool, r in zip(latents(40), rows, strict=True)])
        q = make_q_inputs(learner, 2, step) if learner.q else None
        made.append(learner.iteration(Inputs(start, learner.noise(), q=q)))
    return made


def assert_two_parts_are_the_whole(learner: ActorCriticLearner, inputs: Inputs) -> None:
    """The actors' gradient, which is taken in two parts, is that of their whole objective."""
    grads, _, metrics = learner._actor_gradients(inputs)
    learner.return_moments.zero_()
    loss, _, whole = learner.actor_objective(inputs)
    expected = torch.autograd.grad(loss.sum(), list(learner.actors.parameters()))
    torch.testing.assert_close(grads, list(expected))
    torch.testing.assert_close(metrics, whole)


def assert_same_state(one: ActorCriticLearner, other: ActorCriticLearner) -> None:
    """All that a checkpoint has of two learners is equal, bit for bit."""
    theirs = other.tensors()
    for group, items in one.tensors().items():
        for name, tensor in items.items():
            assert torch.equal(tensor, theirs[group][name]), f"{group}/{name}"
