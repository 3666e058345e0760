"""Weights that differ from those of a base model by products of two thin matrices (LoRA).

A checkpoint on a base has in the place of a changed matrix ``<name>`` its two factors, whole the
tensors that are small anyway, and nothing of those that are the base's. Its JSON part says where
the base is. Without that, the matrices are in the checkpoint too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pwm.core.errors import PwmError
from pwm.core.fingerprints import fingerprint
from pwm.core.suites import suite_from_table
from pwm.models.widening import widened_state
from pwm.runtime.checkpoint import Checkpoint
from pwm.runtime.checkpoint_index import INDEX

BASE = "base"
"""The entry of a checkpoint's JSON part that says what its tensors are deltas to."""

FACTORS = (".delta_in", ".delta_out")


class LowRankDelta(nn.Module):
    """A change of a weight, (..., outputs, inputs), that begins as none.

    Attributes:
        into, out: factors (..., rank, inputs) and (..., outputs, rank).
    """

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        *stack, outputs, inputs = weight.shape
        self.into = nn.Parameter(weight.new_empty(*stack, rank, inputs))
        self.out = nn.Parameter(weight.new_zeros(*stack, outputs, rank))
        self.scale = scale
        nn.init.normal_(self.into, std=inputs**-0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with the change."""
        return merged(weight, self.into, self.out, self.scale)


def merged(weight: Tensor, into: Tensor, out: Tensor, scale: float) -> Tensor:
    """A weight plus ``scale`` times the product of its factors."""
    return weight + scale * (out @ into)


def base_entry(base: Path, checkpoint: Path, scale: float) -> dict[str, Any]:
    """What the JSON part of a checkpoint says of the base of its tensors.

    Args:
        base: a checkpoint, itself on a base or not.
        checkpoint: the one on it.
        scale: of the products of factors.
    """
    base, checkpoint = base.resolve(), checkpoint.resolve()
    return {
        "path": str(base),
        "from_here": os.path.relpath(base, checkpoint),
        "digest": fingerprint((base / INDEX).read_bytes()),
        "scale": scale,
    }


def scale_of(meta: Mapping[str, Any]) -> float:
    """What the products of factors in a checkpoint are multiplied with."""
    return float(meta[BASE]["scale"]) if BASE in meta else 1.0


def on_its_base(checkpoint: Checkpoint, read: Callable[[Path], Checkpoint]) -> Checkpoint:
    """A checkpoint with all tensors of the group ``model`` merged, whether or not it is on a base.

    Args:
        checkpoint: of a world model.
        read: opens that of a base.

    Raises:
        PwmError: if the base is not there any more, or is another one.
    """
    entry, scale = checkpoint.meta.get(BASE), scale_of(checkpoint.meta)
    state = {}
    if entry is not None:
        base = on_its_base(read(_where(checkpoint.path, entry)), read)
        suites = suite_from_table(base.meta["suite"]), suite_from_table(checkpoint.meta["suite"])
        state = widened_state(base.tensors["model"], *suites)
    own = checkpoint.tensors.get("model", {})
    state |= {name: tensor for name, tensor in own.items() if not name.endswith(FACTORS)}
    into, out = FACTORS
    for name in [name.removesuffix(into) for name in own if name.endswith(into)]:
        weight = state[name].to(torch.float32)  # of a shipped base they may be in float16
        state[name] = merged(weight, own[name + into], own[name + out], scale)
    return replace(checkpoint, tensors={**checkpoint.tensors, "model": state})


def _where(path: Path, entry: Mapping[str, Any]) -> Path:
    """Where the base is: at the path that was noted, or as far from ``path`` as it was then."""
    noted = Path(entry["path"])
    moved = Path(os.path.normpath(path.resolve() / entry["from_here"]))
    for place in (noted, moved):
        index = place / INDEX
        if index.is_file() and fingerprint(index.read_bytes()) == entry["digest"]:
            return place
    raise PwmError(
        f"{path} has small changes of the world model {noted} alone, which is not there as it was; "
        "put it back."
    )
