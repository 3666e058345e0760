"""A world model's tensors with room for further tasks, which changes nothing for those it has.

What is added is zeros: columns that read further entries of observations and actions, whose inputs
are padding and so zeros for the tasks of before, rows that only further tasks look up, and outputs
that their masks hide.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from pwm.core.suites import Suite

EMBEDDING = "task_emb.weight"
MOMENTS = ("obs_mean", "obs_scale")

_OBS_INPUT = "encoder.0.weight"
_ACTION_INPUTS = (
    "dynamics.0.weight", "reward_head.0.weight", "q_ensemble.0.weight", "q_target.0.weight",
)  # fmt: skip
_ACTION_OUTPUTS = ("prior.2.weight", "prior.2.bias")  # means, then logarithms of deviations


def widened_state(state: Mapping[str, Tensor], before: Suite, after: Suite) -> dict[str, Tensor]:
    """A world model's tensors for more tasks.

    Args:
        state: of a model of the tasks ``before``.
        before: its tasks.
        after: the same tasks, and others behind them.

    Returns:
        The tensors of a model of the tasks ``after``, new where they differ. New embeddings are
        zeros, new observations are neither shifted nor scaled.
    """
    assert after.tasks[: len(before)] == before.tasks
    tasks = len(after) - len(before)
    obs, action = after.obs_dim - before.obs_dim, after.action_dim - before.action_dim
    wide = dict(state)
    if EMBEDDING in wide:
        wide[EMBEDDING] = F.pad(wide[EMBEDDING], (0, 0, 0, tasks))
    for name, neutral in zip(MOMENTS, (0.0, 1.0), strict=True):
        if name in wide:
            wide[name] = F.pad(wide[name], (0, obs, 0, tasks), value=neutral)
    if obs:
        weight = wide[_OBS_INPUT]
        read, embedding = weight[:, : before.obs_dim], weight[:, before.obs_dim :]
        wide[_OBS_INPUT] = torch.cat([F.pad(read, (0, obs)), embedding], 1)
    for name in _ACTION_INPUTS if action else ():
        if name in wide:
            wide[name] = F.pad(wide[name], (0, action))
    for name in _ACTION_OUTPUTS if action else ():
        if name in wide:
            halves = wide[name].unflatten(0, (2, before.action_dim))
            below = (0, 0) * (halves.ndim - 2) + (0, action)
            wide[name] = F.pad(halves, below).flatten(0, 1)
    return wide
