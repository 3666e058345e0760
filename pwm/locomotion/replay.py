"""Transitions of N environments side by side, and windows of them for a world model."""

from __future__ import annotations

import torch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.data.windows.batch import Batch
from pwm.locomotion.batched_simulation import Step

_ATTEMPTS = 100


class Replay:
    """The newest steps of N environments, which drop the oldest once it is full.

    Args:
        capacity: transitions, all environments together.
        num_envs: N.
        observation_size: components of an observation.
        action_size: components of an action.
        device: where they are kept and drawn.
        recent_steps: which are the newest, all environments together, of which a share of what is
            drawn can be.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        observation_size: int,
        action_size: int,
        device: torch.device,
        recent_steps: int = 1,
    ) -> None:
        rows = max(capacity // num_envs, 2)
        self._recent_rows = -(-recent_steps // num_envs)
        self._rows, self._num_envs, self._device = rows, num_envs, device

        def column(*size: int, dtype: torch.dtype | None = None) -> Tensor:
            return torch.zeros(rows, num_envs, *size, dtype=dtype, device=device)

        self._columns = {
            "observation": column(observation_size),
            "reached": column(observation_size),
            "action": column(action_size),
            "reward": column(),
            "terminated": column(dtype=torch.bool),
            "truncated": column(dtype=torch.bool),
        }
        self._added = 0

    def __len__(self) -> int:
        """Transitions that are kept."""
        return min(self._added, self._rows) * self._num_envs

    def add(self, observation: Tensor, action: Tensor, step: Step) -> None:
        """A step of all environments, from what was observed before it."""
        row = self._added % self._rows
        values = (
            observation,
            step.final_observation,
            action,
            step.reward,
            step.terminated,
            step.truncated,
        )
        for column, value in zip(self._columns.values(), values, strict=True):
            column[row] = value.detach()
        self._added += 1

    def observations(self, count: int, generator: torch.Generator, recent: float = 0.0) -> Tensor:
        """(count, observation_size), each drawn from all that are kept.

        Args:
            count: how many.
            generator: of what is drawn.
            recent: the share, 0..1, that is of the newest steps alone.
        """
        rows, envs = self._draw(count, 1, generator, recent)
        return self._columns["observation"][rows, envs]

    def windows(
        self, horizon: int, count: int, generator: torch.Generator, recent: float = 0.0
    ) -> Batch:
        """Windows of H+1 rows, each of one episode; a share ``recent`` of the newest steps alone.

        What ends by itself stays where it ended, with no reward: a window may go on beyond the
        end, so that short episodes give windows too. The clock's end is no end, and windows that
        reach beyond it are drawn anew.

        Raises:
            PwmError: if there are none yet.
        """
        rows, envs = self._whole_windows(horizon, count, generator, recent)
        columns = self._columns
        steps = torch.arange(horizon, device=self._device).unsqueeze(1)
        at = (rows + steps) % self._rows  # (H, B)
        ended = columns["terminated"][at, envs]
        end = torch.where(ended.any(0), ended.float().argmax(0), horizon)  # (B,)
        after = steps > end
        reached = columns["reached"][(rows + torch.minimum(steps, end)) % self._rows, envs]
        first = columns["observation"][rows, envs].unsqueeze(0)
        return Batch(
            torch.cat([first, reached]),
            columns["action"][at, envs].masked_fill(after.unsqueeze(-1), 0.0),
            columns["reward"][at, envs].masked_fill(after, 0.0),
            torch.zeros(count, dtype=torch.int64, device=self._device),
            steps >= end,
        )

    def _whole_windows(
        self, horizon: int, count: int, generator: torch.Generator, recent: float
    ) -> tuple[Tensor, Tensor]:
        if self._added < horizon:
            raise PwmError(
                f"the replay has {self._added} steps per environment, and windows take {horizon}; "
                "collect more before learning (pwm.first_steps=), or take a shorter pwm.horizon."
            )
        found: list[Tensor] = []
        have = 0
        for _ in range(_ATTEMPTS):
            drawn = torch.stack(self._draw(count, horizon, generator, recent))
            kept = drawn[:, self._is_whole(drawn[0], drawn[1], horizon)]
            found.append(kept)
            have += kept.shape[1]
            if have >= count:
                rows, envs = torch.cat(found, 1)[:, :count].unbind()
                return rows, envs
        raise PwmError(
            f"hardly any episode is as long as pwm.horizon={horizon} steps; take a shorter one."
        )

    def _is_whole(self, rows: Tensor, envs: Tensor, horizon: int) -> Tensor:
        """Whether the clock stops none of the steps but the last, or an end comes before it."""
        steps = torch.arange(horizon - 1, device=self._device).unsqueeze(1)
        at = (rows + steps) % self._rows
        terminated = self._columns["terminated"][at, envs].cumsum(0) > 0
        return ~(self._columns["truncated"][at, envs] & ~terminated).any(0)

    def _draw(
        self, count: int, ahead: int, generator: torch.Generator, recent: float
    ) -> tuple[Tensor, Tensor]:
        """Rows that have ``ahead`` rows from there on, and environments, (count,) each."""
        kept = min(self._added, self._rows)
        oldest = self._added - kept
        starts = kept - ahead + 1
        rows = torch.randint(starts, (count,), generator=generator, device=self._device)
        if recent:
            some = min(self._recent_rows, starts)
            newest = torch.randint(
                starts - some, starts, (count,), generator=generator, device=self._device
            )
            share = torch.rand(count, generator=generator, device=self._device)
            rows = torch.where(share < recent, newest, rows)
        envs = torch.randint(self._num_envs, (count,), generator=generator, device=self._device)
        return (rows + oldest) % self._rows, envs

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint: what is kept."""
        kept = min(self._added, self._rows)
        filled = {name: column[:kept] for name, column in self._columns.items()}
        return filled | {"added": torch.tensor(self._added)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """What :meth:`tensors` gave."""
        for name, column in self._columns.items():
            column[: len(tensors[name])] = tensors[name].to(self._device)
        self._added = int(tensors["added"])
