"""Recorded rows of K tasks side by side: start states, what to clone, and transitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pwm.core.suites import Task
from pwm.data.problems import BadData
from pwm.data.start_states import StatePool
from pwm.data.store import EpisodeStore
from pwm.extraction.advantage_weighting import cloned_rows
from pwm.extraction.config import ExtractConfig
from pwm.extraction.inputs import Transitions
from pwm.models.world_model import WorldModel
from pwm.runtime.seeding import stream


class StartStates:
    """K tasks' pools of recorded observations, as latents of a world model.

    With a frozen model each observation is encoded once; one that is being fine-tuned encodes
    what is drawn anew.
    """

    def __init__(self, model: WorldModel, obs: Tensor, task_ids: Tensor, frozen: bool) -> None:
        self.model, self.task_ids, self.frozen = model, task_ids.unsqueeze(1), frozen
        self.content = self._encode(obs) if frozen else obs

    @torch.no_grad()
    def _encode(self, obs: Tensor) -> Tensor:
        parts = [self.model.encode(part, self.task_ids) for part in obs.split(2048, dim=1)]
        return torch.cat(parts, 1)

    def __len__(self) -> int:
        return self.content.shape[1]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Latents (K, B, latent) of row numbers (K, B)."""
        drawn = take(self.content, rows)
        return drawn if self.frozen else self._encode(drawn)


def take(pool: Tensor, rows: Tensor) -> Tensor:
    """Of each task's pool (K, n, size) the rows (K, B): (K, B, size)."""
    return pool.gather(1, rows.unsqueeze(-1).expand(-1, -1, pool.shape[-1]))


class RecordedTransitions:
    """K tasks' recorded transitions; states as those of :class:`StartStates`."""

    def __init__(self, model: WorldModel, rows: Pools, task_ids: Tensor, frozen: bool) -> None:
        self._states = StartStates(model, rows.obs, task_ids, frozen)
        self._next_states = StartStates(model, rows.next_obs, task_ids, frozen)
        self._action = rows.action
        self._outcome = torch.stack([rows.reward, rows.next_discount], -1)

    def __len__(self) -> int:
        return len(self._states)

    def mean_value(self) -> Tensor:
        """(K,) the value that, were it that of all states, the transitions would agree with."""
        reward, discount = self._outcome.unbind(-1)
        return reward.mean(1) / (1 - discount).mean(1).clamp(min=1e-3)

    def __getitem__(self, rows: Tensor) -> Transitions:
        """Those of row numbers (K, B)."""
        reward, discount = take(self._outcome, rows).unbind(-1)
        return Transitions(
            self._states[rows],
            take(self._action, rows),
            reward,
            discount,
            self._next_states[rows],
        )


class Pools(NamedTuple):
    """K tasks' state pools of n rows side by side; fields as in `StatePool`."""

    obs: Tensor  # (K, n, obs_dim)
    action: Tensor  # (K, n, action_dim)
    next_obs: Tensor  # (K, n, obs_dim)
    reward: Tensor  # (K, n), and so are the others
    next_discount: Tensor
    return_to_go: Tensor
    steps_to_go: Tensor


def draw_pools(
    store: EpisodeStore,
    tasks: Sequence[Task],
    model: WorldModel,
    config: ExtractConfig,
    bad: BadData,
    best: float = 1.0,
    newest: float = 1.0,
    ahead: int = 1,
    most: int | None = None,
) -> Pools:
    """Rows of each task, repeated in their order where a task has fewer than others.

    Args:
        store: the data.
        tasks: K of them.
        model: gives the padded sizes and the device.
        config: of the extraction; its ``pool`` is how many rows each task gets.
        bad: told of bad data.
        best: share of a task's episodes, the best of them, that the rows are of.
        newest: share of a task's episodes, those recorded last, among which these are chosen.
        ahead: how many steps later the next observation is.
        most: in place of ``config.pool``: no more rows than that, and than any task has.
    """
    rows = config.pool if most is None else most
    pools = [
        StatePool.draw(
            store,
            task.name,
            rows,
            config.seed,
            suite=model.suite,
            discount=config.learner.discount,
            best=best,
            newest=newest,
            ahead=ahead,
            symlog_rewards=config.learner.reward_units == "symlog",
            bad=bad,
        )
        for task in tasks
    ]
    device = model.bins.device
    count = rows if most is None else max(map(len, pools))
    stacked = (
        torch.stack([_cycle(getattr(pool, name), count) for pool in pools]).to(device)
        for name in Pools._fields
    )
    return Pools(*stacked)


def weighted(pools: Pools, model: WorldModel, ids: Tensor, temperature: float, seed: int) -> Pools:
    """Rows drawn anew with weights that rise with how well they turned out."""
    latent = StartStates(model, pools.obs, ids, frozen=True).content
    device = latent.device
    names = [model.suite.tasks[i].name for i in ids.tolist()]
    generators = [stream(seed, f"{name}/clones", device) for name in names]
    outcome = pools.return_to_go / pools.steps_to_go
    rows = cloned_rows(latent, outcome, temperature, generators)
    return pools._replace(obs=take(pools.obs, rows), action=take(pools.action, rows))


def _cycle(rows: Tensor, count: int) -> Tensor:
    """The first ``count`` rows of endless repetitions, so that tasks' pools stack."""
    return rows[torch.arange(count) % len(rows)]
