"""The keys of a checkpoint, without what wrappers, aliases and early releases made of them.

``torch.compile`` puts ``_orig_mod.`` into a key, data parallelism ``module.``, an agent's own state
dict ``model.``; a module under two names has each weight twice. Before its release TD-MPC2 kept a
LayerNorm as an entry of its own in a Sequential, or in a Sequential within one, where it is
``ln`` of its linear layer today.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pwm.core.errors import PwmError

_STATE_KEYS = ("model", "world_model", "state_dict", "model_state_dict", "agent")
_NETWORKS = ("_encoder", "_dynamics", "_reward", "_pi", "_termination", "_task_emb")
_QS = ("_Qs", "_detach_Qs", "_target_Qs", "_detach_Qs_params", "_target_Qs_params")
_HEADS = {*_NETWORKS, *_QS, "_action_masks", "log_std_min", "log_std_dif"}
_WRAPPERS = ("_orig_mod", "module")
_DEPTH = 4  # of dictionaries within each other
_LAYER = re.compile(
    r"(_encoder\.state|_encoder|_dynamics|_reward|_pi|_termination)\.(\d+(?:\.\d+)*)\.(weight|bias)"
)


def model_entries(path: Path, content: Any) -> dict[str, Any] | None:
    """The state dict of a world model within what a file holds, with plain keys; None without one.

    Raises:
        PwmError: if a weight is there twice with different values, or layers cannot be told apart.
    """
    for _ in range(_DEPTH):
        if not isinstance(content, dict):
            return None
        entries = _plain(path, content)
        if any(key.startswith(("_encoder.", "_dynamics.", "_reward.")) for key in entries):
            return _paired(path, entries)
        inner = [content[key] for key in _STATE_KEYS if isinstance(content.get(key), dict)]
        content = inner[0] if inner else None
    return None


def _plain(path: Path, content: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    first: dict[str, str] = {}
    keys = [key for key in content if isinstance(key, str)]
    within = tuple({p for p in map(_prefix, keys) if p is not None})
    for key in keys:
        if within and not key.startswith(within):
            continue  # of an agent, beside its model
        name, value = _plain_key(key), content[key]
        if name in found and not _equal(found[name], value):
            raise PwmError(
                f"{path} has {name} twice with different values, as '{first[name]:.100}' and "
                f"'{key:.100}'; save the state dict of one model alone."
            )
        if name not in found or _is_empty(found[name]):
            found[name] = value
            first[name] = key
    return found


def _prefix(key: str) -> str | None:
    """What stands before the name of a network, None if a key has none."""
    parts = key.split(".")
    start = next((i for i, part in enumerate(parts) if part in _HEADS), None)
    return None if start is None else "".join(f"{part}." for part in parts[:start])


def _plain_key(key: str) -> str:
    prefix = _prefix(key)
    if prefix is None:
        return key
    parts, start = key.split("."), prefix.count(".")
    kept = [part for part in parts[start:] if part != _WRAPPERS[0]]
    if kept[0] not in _QS or "params" in kept:  # the ensemble's own ``module`` has no numbers
        kept = [part for part in kept if part not in _WRAPPERS]
    return ".".join(kept)


def _is_empty(value: Any) -> bool:
    return not isinstance(value, Tensor) or value.is_meta


def _equal(one: Any, other: Any) -> bool:
    if _is_empty(one) or _is_empty(other):
        return True
    same = one.shape == other.shape and one.dtype == other.dtype
    return bool(same and torch.equal(one.detach(), other.detach()))


def _paired(path: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """The entries with each LayerNorm as ``ln`` of the linear layer that it follows."""
    if any(".ln." in key for key in entries):
        return entries
    matches = {key: match for key in entries if (match := _LAYER.fullmatch(key))}
    names: dict[tuple[str, str], str] = {}
    for network in {match[1] for match in matches.values()}:
        places = {match[2] for match in matches.values() if match[1] == network}
        layer, width, normed = -1, 0, True
        for place in sorted(places, key=lambda text: [int(part) for part in text.split(".")]):
            shape = tuple(getattr(entries.get(f"{network}.{place}.weight"), "shape", ()))
            if len(shape) == 2:
                layer, width, normed = layer + 1, shape[0], False
                names[network, place] = f"{network}.{layer}"
            elif shape == (width,) and not normed:
                names[network, place], normed = f"{network}.{layer}.ln", True
            else:
                raise PwmError(
                    f"{path} has {network}.{place} of shape {shape}, which is neither a linear "
                    "layer nor the norm of the one before it; give a whole checkpoint."
                )
    renamed = {key: f"{names[match[1], match[2]]}.{match[3]}" for key, match in matches.items()}
    return {renamed.get(key, key): value for key, value in entries.items()}
