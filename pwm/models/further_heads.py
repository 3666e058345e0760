"""An ensemble that costs little: further dynamics and reward heads on one world model's encoder.

They are a group of tensors of their own in a checkpoint, so the world model's are what they are
without them, and whatever opens it needs to know of no ensemble.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from pwm.models.world_model import KIND, WorldModel, find_world_model
from pwm.runtime.checkpoint import load_checkpoint
from pwm.runtime.checkpoint_index import read_index
from pwm.runtime.grouped import is_grouped
from pwm.runtime.seeding import stream_seed

HEADS = "further_heads"
"""The group of tensors."""

_PARTS = ("dynamics", "reward_head")
_MIXER = 0x5851F42D4C957F2D  # odd: products with it, modulo 2**64, can be undone


class FurtherHeads(nn.Module):
    """Untrained heads of the ensemble's members after the first, which is the model itself.

    Args:
        model: whose latents they are of.
        count: their number.
        seed: of their weights, and of which windows each learns from.
    """

    window_keys: Tensor

    def __init__(self, model: WorldModel, count: int, seed: int) -> None:
        super().__init__()
        device = model.bins.device
        forked = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(forked):  # so that all else draws what it does without heads
            torch.manual_seed(stream_seed(seed, "further heads"))
            fresh = [WorldModel(model.size, model.suite) for _ in range(count)]
            entries = model.suite.obs_dim + model.suite.action_dim
            keys = torch.randint(2**62, (count, entries))
        self.members = nn.ModuleList(
            nn.ModuleDict({part: one.get_submodule(part) for part in _PARTS}) for one in fresh
        )
        self.register_buffer("window_keys", 2 * keys + 1)

    def models(self, model: WorldModel) -> list[WorldModel]:
        """The model with each of the heads in the place of its own; all else is shared."""
        made = []
        for heads in self.members:
            assert isinstance(heads, nn.ModuleDict)
            one = copy.copy(model)
            one.__dict__["_modules"] = {**model._modules, **dict(heads.items())}
            made.append(one)
        return made

    def windows(self, obs: Tensor, action: Tensor) -> Tensor:
        """(members, B), 1 for about half of the windows, those that a member learns from, else 0.

        It is chosen by what a window begins with, so the same window is always learned from by the
        same members, in whatever batch it comes, and no state needs to be kept.

        Args:
            obs: (B, obs_dim), the windows' first.
            action: (B, action_dim), done there.
        """
        begin = torch.cat([obs, action], -1).float().contiguous()
        mixed = (begin.view(torch.int32).long() * self.window_keys.unsqueeze(1)).sum(-1)
        mixed = (mixed ^ (mixed >> 32)) * _MIXER
        return ((mixed >> 40) & 1).to(begin.dtype)


def further_models(path: str | Path, model: WorldModel) -> list[WorldModel]:
    """The other members of a world model's own ensemble of heads, frozen; none if it has none.

    Args:
        path: where the model was opened.
        model: shares its encoder with them.

    Raises:
        PwmError: if they are damaged.
    """
    if is_grouped(Path(path)):
        return []
    found = find_world_model(Path(path))
    if HEADS not in read_index(found.path, KIND).groups:
        return []
    state = load_checkpoint(found.path, KIND, groups=(HEADS,)).tensors[HEADS]
    heads = FurtherHeads(model, len(state["window_keys"]), 0)
    heads.load_state_dict(state)
    return heads.to(model.bins.device).eval().requires_grad_(False).models(model)
