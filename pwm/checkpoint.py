"""One checkpoint format: a directory of safetensors files and one JSON file, replaced atomically.

A checkpoint directory holds ``checkpoint.json`` (format version, kind, everything that is not a
tensor, the SHA-256 of each tensor file and of itself) and one ``<group>-<sha256>.safetensors`` a
group of tensors. The JSON file is the commit point: tensor files of new content have new names, so
a writer that is killed at any instruction leaves the old checkpoint whole. Nothing in it is pickle,
so opening one runs no code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pwm.errors import PwmError
from pwm.files import write_atomically

FORMAT_VERSION = 1
_INDEX = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint directory holds.

    Attributes:
        path: the directory it was read from.
        tensors: group name -> tensor name -> tensor.
        meta: the JSON part.
    """

    path: Path
    tensors: dict[str, dict[str, Tensor]]
    meta: dict[str, Any]


def is_checkpoint(path: Path) -> bool:
    """Whether a directory looks like a checkpoint."""
    return (path / _INDEX).is_file()


def save_checkpoint(
    path: Path, kind: str, tensors: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]
) -> None:
    """Write a checkpoint so that ``path`` holds at every moment none, the old one, or the new one.

    Args:
        path: directory to create or replace.
        kind: what it is, such as ``"policy"``; checked on loading.
        tensors: group name -> tensor name -> tensor, on any device.
        meta: anything JSON can hold.
    """
    path.mkdir(parents=True, exist_ok=True)
    digests = {}
    for group, items in tensors.items():
        data = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in items.items()})
        digest = hashlib.sha256(data).hexdigest()
        name = f"{group}-{digest[:16]}.safetensors"
        write_atomically(path / name, data)
        digests[name] = digest
    index = {"format": FORMAT_VERSION, "kind": kind, "files": digests, "meta": dict(meta)}
    index = json.loads(json.dumps(index))  # as it will be read
    index["checksum"] = _checksum(index)
    write_atomically(path / _INDEX, json.dumps(index, indent=1).encode())
    for left_over in path.glob("*.safetensors*"):
        if left_over.name not in digests:
            left_over.unlink()


def _checksum(index: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def read_meta(path: Path, kind: str) -> dict[str, Any]:
    """The JSON part of a checkpoint alone.

    Raises:
        PwmError: as :func:`load_checkpoint` does.
    """
    return _read_index(Path(path), kind)["meta"]


def load_checkpoint(path: Path, kind: str, groups: tuple[str, ...] | None = None) -> Checkpoint:
    """Read a checkpoint onto the CPU, verifying every file's checksum.

    Args:
        path: the checkpoint directory.
        kind: the kind that is expected.
        groups: the tensor groups to read; all by default.

    Raises:
        PwmError: if the directory is none, is of another kind or a newer format, or is damaged.
    """
    path = Path(path)
    index = _read_index(path, kind)
    tensors = {}
    for name, digest in index["files"].items():
        group = name.removesuffix(".safetensors").partition("-")[0]
        if groups is not None and group not in groups:
            continue
        tensors[group] = _read_tensors(path / name, digest)
    missing = set(groups or ()) - set(tensors)
    if missing:
        raise PwmError(f"checkpoint {path} has no tensors named {', '.join(sorted(missing))}.")
    return Checkpoint(path, tensors, index["meta"])


def _read_index(path: Path, kind: str) -> dict[str, Any]:
    file = path / _INDEX
    if not file.is_file():
        raise PwmError(f"{path} is not a checkpoint: it has no {_INDEX}; check the path.")
    try:
        index = json.loads(file.read_bytes())
        checksum = index.pop("checksum", None)
        version, found, files = index["format"], index["kind"], index["files"]
        dict(index["meta"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PwmError(f"{file} is damaged ({error}); use another checkpoint.") from error
    if version != FORMAT_VERSION:
        raise PwmError(
            f"{path} has checkpoint format {version}, this version of pwm reads "
            f"{FORMAT_VERSION}; upgrade pwm."
        )
    if (checksum is not None and checksum != _checksum(index)) or len(index) != 4:
        raise PwmError(f"{file} is damaged (its checksum differs); use another checkpoint.")
    if found != kind:
        raise PwmError(f"{path} holds a {found} checkpoint, expected a {kind} one.")
    named_plainly = isinstance(files, dict) and all(
        Path(name).name == name and name.endswith(".safetensors") for name in files
    )
    if not named_plainly:
        raise PwmError(f"{file} is damaged (its file list is malformed); use another checkpoint.")
    return index


def _read_tensors(file: Path, digest: str) -> dict[str, Tensor]:
    if not file.is_file():
        raise PwmError(f"{file} is missing; the checkpoint is incomplete, use another one.")
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise PwmError(f"{file} is damaged (its checksum differs); use another checkpoint.")
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise PwmError(f"{file} is damaged ({error}); use another checkpoint.") from error


def step_name(step: int) -> str:
    """Directory name of a training checkpoint, sorting by step."""
    return f"step_{step:09d}"


def list_steps(directory: Path) -> list[Path]:
    """Training checkpoints in a directory, oldest first."""
    return sorted(p for p in directory.glob("step_*") if is_checkpoint(p))


def load_latest(directory: Path, kind: str, warn: Any = None) -> Checkpoint | None:
    """The newest whole training checkpoint, or None if there is none.

    A damaged one is passed over; ``warn``, if given, is called with a sentence that says so.
    """
    for path in reversed(list_steps(directory)):
        try:
            return load_checkpoint(path, kind)
        except PwmError as error:
            if warn is not None:
                warn(f"{error} Falling back to the one before.")
    return None


def prune_steps(directory: Path, keep_last: int) -> None:
    """Delete all but the newest ``keep_last`` training checkpoints."""
    for path in list_steps(directory)[: -max(keep_last, 1)]:
        shutil.rmtree(path)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's per-parameter state as named tensors: ``<parameter index>.<entry>``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, entries in state.items()
        for name, value in entries.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore what :func:`optimizer_tensors` gave; learning rates are left as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
