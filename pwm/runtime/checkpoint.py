"""One checkpoint format: a directory of safetensors files and one JSON file, replaced atomically.

A checkpoint directory holds ``checkpoint.json`` (format version, kind, library versions, the file
and SHA-256 of each group of tensors, everything that is not a tensor, a checksum of itself) and one
``<group>-<sha256>.safetensors`` per group. The JSON file is the commit point: tensor files of new
content have new names, so a writer that is killed at any instruction leaves the old checkpoint
whole. Nothing in it is pickle, so opening one runs no code.

A checkpoint that several ranks wrote together (`pwm.pretraining.parallel_learner`) has shards, of
which each holds parts of all groups' tensors, and is opened like any other. A group may also lie
beside the directory, where the checkpoints of many policies share one encoder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pwm.core.errors import PwmError
from pwm.core.files import file_sha256, make_directory, write_atomically
from pwm.runtime.checkpoint_index import (
    ABOVE,
    INDEX,
    DamagedCheckpointError,
    read_index,
    write_index,
)

M = TypeVar("M", bound=nn.Module)
Groups = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint directory holds.

    Attributes:
        path: the directory it was read from.
        tensors: group name -> tensor name -> tensor.
        meta: the JSON part.
        versions: of the libraries that wrote it, by name; empty where that was not recorded.
    """

    path: Path
    tensors: Groups
    meta: dict[str, Any]
    versions: dict[str, str]


def is_checkpoint(path: Path) -> bool:
    """Whether a directory looks like a checkpoint."""
    return (path / INDEX).is_file()


def saved_kind(path: Path) -> str:
    """The kind that a checkpoint says it is of; raises PwmError if it says none."""
    try:
        return str(json.loads((path / INDEX).read_bytes())["kind"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DamagedCheckpointError(path / INDEX, str(error)) from error


def save_checkpoint(
    path: Path,
    kind: str,
    tensors: Mapping[str, Mapping[str, Tensor]],
    meta: Mapping[str, Any],
    shared: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """Write a checkpoint so that ``path`` holds at every moment none, the old one, or the new one.

    Args:
        path: directory to create or replace.
        kind: what it is, such as ``"policy"``; checked on loading.
        tensors: group name -> tensor name -> tensor, on any device.
        meta: anything JSON can hold.
        shared: likewise groups, whose files go beside the directory; checkpoints there that share
            equal ones share their file, which nothing deletes.

    Raises:
        PwmError: if it cannot be written.
    """
    make_directory(path)
    try:
        groups = {name: _write_group(path, name, items) for name, items in tensors.items()}
        for name, items in (shared or {}).items():
            groups[name] = _write_group(path, name, items, ABOVE)
        write_index(path, kind, meta, groups=groups)
    finally:
        _delete_unnamed(path, kind)  # of the checkpoint before, or of this one on a full disk


def _write_group(
    path: Path, group: str, tensors: Mapping[str, Tensor], above: str = ""
) -> dict[str, str]:
    data = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    name = f"{above}{group}-{digest[:16]}.safetensors"
    if not above or not (path / name).is_file():
        write_atomically(path / name, data)
    return {"file": name, "sha256": digest}


def _delete_unnamed(path: Path, kind: str) -> None:
    """Delete tensors that are not the checkpoint's: the last one's, or of one that did not fit."""
    named: Mapping[str, str] = {}
    if is_checkpoint(path):
        try:
            named = read_index(path, kind).files()
        except PwmError:
            return  # whose they are cannot be known
    for left_over in path.glob("*.safetensors*"):
        if left_over.name not in named:
            left_over.unlink()


def to_float16(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight matrices in float16 if it has room for all their values; everything else as it is.

    Modules that load them keep their own float32.
    """
    rounded = {}
    for name, tensor in tensors.items():
        half = tensor.half()
        fits = name.endswith("weight") and tensor.ndim > 1 and bool(half.isfinite().all())
        rounded[name] = half if fits else tensor
    return rounded


def read_meta(path: Path, kind: str) -> dict[str, Any]:
    """The JSON part of a checkpoint alone; raises as :func:`load_checkpoint` does."""
    return read_index(Path(path), kind).meta


def shared_files(path: Path, kind: str) -> set[str]:
    """Names of the files beside a checkpoint's directory that it shares with others there."""
    names = read_index(path, kind).files()
    return {name.removeprefix(ABOVE) for name in names if name.startswith(ABOVE)}


def load_checkpoint(
    path: Path,
    kind: str,
    groups: tuple[str, ...] | None = None,
    layout: Callable[[], Groups | None] | None = None,
) -> Checkpoint:
    """Read a checkpoint onto the CPU, verifying every file's checksum.

    Args:
        path: the checkpoint directory.
        kind: the kind that is expected.
        groups: the tensor groups to read; all by default.
        layout: gives the tensors, divided among ranks, into which shards are read; whole ones on
            the CPU by default.

    Raises:
        PwmError: if the directory is none, is of another kind or a newer format, or is damaged.
    """
    path = Path(path)
    index = read_index(path, kind)
    if index.shards is not None:
        tensors = _read_shards(path, index.shards, groups, layout() if layout else None)
    else:
        if missing := set(groups or ()) - set(index.groups):
            raise PwmError(f"checkpoint {path} has no tensors named {', '.join(sorted(missing))}.")
        tensors = {
            name: _read_tensors(path / group.file, group.sha256)
            for name, group in index.groups.items()
            if groups is None or name in groups
        }
    return Checkpoint(path, tensors, index.meta, index.versions)


def _read_tensors(file: Path, digest: str) -> dict[str, Tensor]:
    if not file.is_file():
        raise DamagedCheckpointError(file, "it is missing")
    try:
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise DamagedCheckpointError(file, "its checksum differs")
        return safetensors.torch.load(data)
    except (OSError, SafetensorError) as error:
        raise DamagedCheckpointError(file, str(error)) from error


def _read_shards(
    path: Path, files: Mapping[str, str], groups: tuple[str, ...] | None, into: Groups | None
) -> Groups:
    from pwm.runtime.shards import read_shards

    found = {file.name for file in path.glob("*.safetensors")}
    if found != set(files):
        raise DamagedCheckpointError(
            path / INDEX, f"shards are missing or too many: {found ^ set(files)}"
        )
    try:
        for name, digest in files.items():
            if file_sha256(path / name) != digest:
                raise DamagedCheckpointError(path / name, "its checksum differs")
    except OSError as error:
        raise DamagedCheckpointError(path, str(error)) from error
    return read_shards(path, groups, into)


def rebuild(path: Path, build: Callable[[], M], state: Mapping[str, Tensor]) -> M:
    """The module that ``build`` makes from a checkpoint's JSON part, with the checkpoint's tensors.

    It is made without memory first, so that a description that does not fit the tensors is refused
    before it costs anything.

    Raises:
        PwmError: if the JSON part describes no module, or another one than the tensors are of.
    """
    try:
        with torch.device("meta"):
            described = {name: tensor.shape for name, tensor in build().state_dict().items()}
        if described != {name: tensor.shape for name, tensor in state.items()}:
            raise PwmError("its tensors have other names or sizes than it describes")
        module = build()
        module.load_state_dict(state)
    except (PwmError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise PwmError(f"{path} cannot be used: {reason}; use another checkpoint.") from error
    return module
