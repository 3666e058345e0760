"""A world model with room for new tasks, whose embeddings begin as those of known ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pwm.core.action_bounds import as_known_by
from pwm.core.described_tasks import require_same_environments
from pwm.core.errors import PwmError
from pwm.core.suites import Suite, get_suite
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore
from pwm.data.windows.batch import Batch
from pwm.models.widening import widened_state
from pwm.models.world_model import WorldModel
from pwm.pretraining.learner import LearnerConfig
from pwm.pretraining.losses import model_terms, roll_out, total_loss
from pwm.pretraining.normalization import observation_moments

_WINDOWS = 64  # of a task, by which embeddings are compared


def with_new_tasks(known: Suite, spec: Any, store: EpisodeStore, owner: object) -> Suite:
    """A suite's tasks and behind them those that a setting names.

    Args:
        known: the tasks of a world model.
        spec: the new ones.
        store: their data.
        owner: what the world model is called.

    Raises:
        PwmError: if one is known, or is another one in the store.
    """
    asked = get_suite(spec, store.suite)
    require_same_environments(asked, store.suite, store.path)
    if has := [name for name in asked.names if name in known]:
        raise PwmError(
            f"{owner} knows task '{has[0]}' already; fine-tune it by pwm pretrain init=... "
            f"target={has[0]} finetune=full, or give the new task another name."
        )
    new = [as_known_by(task, store.suite[task.name]) for task in asked]
    return Suite(f"{known.name}+{','.join(asked.names)}", (*known.tasks, *new))


def widened(model: WorldModel, suite: Suite) -> WorldModel:
    """A world model with room for the tasks of a suite that begins with its own.

    It predicts the same as before for those. New observations are not normalized yet.

    Raises:
        PwmError: if the model has no task embeddings.
    """
    if not model.size.task_dim:
        raise PwmError(
            f"the world model of {model.suite.name} has no task embeddings, so it can learn no "
            "second task; give one that was trained on several."
        )
    wide = WorldModel(
        model.size, suite, model.has_q, model.normalize_obs, model.wrap_angles, model.episodic
    )
    wide.load_state_dict(widened_state(model.state_dict(), model.suite, suite))
    return wide.to(model.bins.device).eval().requires_grad_(False)


@torch.no_grad()
def normalize_new(
    model: WorldModel, store: EpisodeStore, tasks: Sequence[int], bad: BadData
) -> None:
    """Normalize the observations of new tasks as their data are, if the model normalizes."""
    if not model.normalize_obs:
        return
    found = observation_moments(store, model.suite, bad, model.wrap_angles)
    for moments, own in zip(found, (model.obs_mean, model.obs_scale), strict=True):
        rows = list(tasks)
        own[rows] = torch.as_tensor(moments[rows]).to(own)


@torch.no_grad()
def ranked_embeddings(
    model: WorldModel, task: int, known: int, windows: Sequence[Batch], config: LearnerConfig
) -> list[tuple[str, float]]:
    """The known tasks by the loss that the model has on a new one with their embeddings.

    Args:
        model: whose embedding of the new task is changed; see :func:`begin_with`.
        task: its id.
        known: the ids below are of known tasks.
        windows: held-out ones, of the new task among others.
        config: of the loss.
    """
    own = [batch.part(_spread(batch.task == task)) for batch in windows]
    own = [batch for batch in own if len(batch.task)]
    table = model.task_emb.weight
    found = []
    for other in range(known):
        table[task] = table[other]
        losses = torch.cat([loss_of_windows(model, batch, config) for batch in own])
        found.append((float(losses.nan_to_num(torch.inf, torch.inf).mean()), other))
    found.sort()
    return [(model.suite.tasks[other].name, loss) for loss, other in found]


@torch.no_grad()
def loss_of_windows(model: WorldModel, batch: Batch, config: LearnerConfig) -> Tensor:
    """The loss of every window of a batch, (B,), without Q ensemble and prior."""
    terms = model_terms(model, batch, roll_out(model, batch), config.rho)
    return total_loss(terms, config.loss)[1]


def begin_with(model: WorldModel, task: int, other: str) -> None:
    """Give a task the embedding of another one."""
    with torch.no_grad():
        model.task_emb.weight[task] = model.task_emb.weight[model.suite.id(other)]


def _spread(chosen: Tensor) -> Tensor:
    """Numbers of some of the chosen windows, evenly spread where they are many."""
    numbers = chosen.nonzero().squeeze(1)
    return numbers[:: max(len(numbers) // _WINDOWS, 1)]
