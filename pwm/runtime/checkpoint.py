"""One checkpoint format: a directory of safetensors files and one JSON file, replaced atomically.

A checkpoint directory holds ``checkpoint.json`` (format version, kind, library versions, the file
and SHA-256 of each group of tensors, everything that is not a tensor, a checksum of itself) and one
``<group>-<sha256>.safetensors`` a group. The JSON file is the commit point: tensor files of new
content have new names, so a writer that is killed at any instruction leaves the old checkpoint
whole. Nothing in it is pickle, so opening one runs no code.

A checkpoint that several ranks wrote together (`pwm.pretraining.sharded_checkpoint`) has shards, of
which each holds parts of all groups' tensors, in place of one file a group. It is opened like any
other.

A group may also lie beside the directory, where the checkpoints of many policies share one encoder.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically
from pwm.core.versions import versions

M = TypeVar("M", bound=nn.Module)
Groups = dict[str, dict[str, Tensor]]

FORMAT_VERSION = 2
SHARDED_FORMAT = 3
SHARING_FORMAT = 4  # as 2, with groups in the directory above
_INDEX = "checkpoint.json"
_ABOVE = "../"
_FILE_NAME = re.compile(r"[A-Za-z0-9_.-]+\.safetensors")


class DamagedCheckpointError(PwmError):
    """A checkpoint that is not what was written: truncated, edited, or with a file missing."""


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
    tensors: dict[str, dict[str, Tensor]]
    meta: dict[str, Any]
    versions: dict[str, str]


def is_checkpoint(path: Path) -> bool:
    """Whether a directory looks like a checkpoint."""
    return (path / _INDEX).is_file()


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
        _write_files(path, kind, tensors, meta, shared or {})
    except PwmError:
        _delete_unnamed(path, kind)  # on a full disk their room is wanted
        raise
    _delete_unnamed(path, kind)


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


def _write_files(
    path: Path,
    kind: str,
    tensors: Mapping[str, Mapping[str, Tensor]],
    meta: Mapping[str, Any],
    shared: Mapping[str, Mapping[str, Tensor]],
) -> None:
    groups = {}
    for group, items in {**tensors, **shared}.items():
        data = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in items.items()})
        digest = hashlib.sha256(data).hexdigest()
        name = f"{group}-{digest[:16]}.safetensors"
        if group not in shared:
            write_atomically(path / name, data)
        else:
            if not (path.parent / name).is_file():
                write_atomically(path.parent / name, data)
            name = _ABOVE + name
        groups[group] = {"file": name, "sha256": digest}
    _commit(
        path,
        {
            "format": SHARING_FORMAT if shared else FORMAT_VERSION,
            "kind": kind,
            "versions": versions(),
            "groups": groups,
            "meta": dict(meta),
        },
    )


def _delete_unnamed(path: Path, kind: str) -> None:
    """Delete tensors that are not the checkpoint's: the last one's, or of one that did not fit."""
    named = set()
    if is_checkpoint(path):
        try:
            named = {name for name, _ in _files(_read_index(path, kind))}
        except PwmError:
            return  # whose they are cannot be known
    for left_over in path.glob("*.safetensors*"):
        if left_over.name not in named:
            left_over.unlink()


def commit_shards(path: Path, kind: str, files: Mapping[str, str], meta: Mapping[str, Any]) -> None:
    """Make a checkpoint of the files that `pwm.runtime.shards.write_shards` put into a directory.

    Args:
        path: the directory.
        kind: as :func:`save_checkpoint` takes it.
        files: the names of all of them, and their SHA-256.
        meta: as :func:`save_checkpoint` takes it.
    """
    _commit(
        path,
        {
            "format": SHARDED_FORMAT,
            "kind": kind,
            "versions": versions(),
            "shards": dict(files),
            "meta": dict(meta),
        },
    )


def _commit(path: Path, index: dict[str, Any]) -> None:
    index = json.loads(json.dumps(index))  # as it will be read
    index["checksum"] = _checksum(index)
    write_atomically(path / _INDEX, json.dumps(index, indent=1).encode())


def _checksum(index: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def read_meta(path: Path, kind: str) -> dict[str, Any]:
    """The JSON part of a checkpoint alone.

    Raises:
        PwmError: as :func:`load_checkpoint` does.
    """
    return _read_index(Path(path), kind)["meta"]


def shared_files(path: Path, kind: str) -> set[str]:
    """Names of the files beside a checkpoint's directory that it shares with others there.

    Raises:
        PwmError: as :func:`load_checkpoint` does.
    """
    names = (name for name, _ in _files(_read_index(path, kind)))
    return {name.removeprefix(_ABOVE) for name in names if name.startswith(_ABOVE)}


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
    index = _read_index(path, kind)
    if "shards" in index:
        into = None if layout is None else layout()
        tensors = _read_shards(path, index["shards"], groups, into)
        return Checkpoint(path, tensors, index["meta"], index["versions"])
    stored = index["groups"]
    if missing := set(groups or ()) - set(stored):
        raise PwmError(f"checkpoint {path} has no tensors named {', '.join(sorted(missing))}.")
    tensors = {
        group: _read_tensors(path / entry["file"], entry["sha256"])
        for group, entry in stored.items()
        if groups is None or group in groups
    }
    return Checkpoint(path, tensors, index["meta"], index["versions"])


def _read_index(path: Path, kind: str) -> dict[str, Any]:
    file = path / _INDEX
    if not file.is_file():
        raise PwmError(f"{path} is not a checkpoint: it has no {_INDEX}; check the path.")
    try:
        index = json.loads(file.read_bytes())
        if index.pop("checksum", None) != _checksum(index):
            raise _damaged(file, "its checksum differs")
        version = index["format"]
        if version not in (FORMAT_VERSION, SHARDED_FORMAT, SHARING_FORMAT, *_MIGRATIONS):
            raise PwmError(
                f"{path} has checkpoint format {version}, this version of pwm reads up to "
                f"{SHARING_FORMAT}; upgrade pwm."
            )
        while index["format"] in _MIGRATIONS:
            index = _MIGRATIONS[index["format"]](index)
        found = index["kind"]
        files = _files(index)
        above = _ABOVE if index["format"] == SHARING_FORMAT else ""
        well_formed = (
            isinstance(index["meta"], dict)
            and isinstance(index["versions"], dict)
            and all(_FILE_NAME.fullmatch(name.removeprefix(above)) for name, _ in files)
            and all(isinstance(digest, str) for _, digest in files)
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(file, repr(error)) from error
    if not well_formed:
        raise _damaged(file, "it does not say what it must")
    if found != kind:
        raise PwmError(f"{path} holds a {found} checkpoint, expected a {kind} one.")
    return index


def _files(index: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and SHA-256 of the files that an index in the newest format names."""
    if index["format"] == SHARDED_FORMAT:
        return list(index["shards"].items())
    return [(entry["file"], entry["sha256"]) for entry in index["groups"].values()]


def _migrate_1(index: dict[str, Any]) -> dict[str, Any]:
    """Format 1 left a group's name to its file's name, and recorded no library versions."""
    files = index.pop("files")
    groups = {
        name.rpartition("-")[0]: {"file": name, "sha256": digest} for name, digest in files.items()
    }
    return {**index, "format": 2, "versions": {}, "groups": groups}


_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _migrate_1}
"""From a format's number to the function that turns its index into the next format's."""


def _damaged(file: Path, how: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"{file} is damaged ({how}); use another checkpoint.")


def _read_tensors(file: Path, digest: str) -> dict[str, Tensor]:
    if not file.is_file():
        raise DamagedCheckpointError(
            f"{file} is missing; the checkpoint is incomplete, use another one."
        )
    try:
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise _damaged(file, "its checksum differs")
        return safetensors.torch.load(data)
    except (OSError, SafetensorError) as error:
        raise _damaged(file, str(error)) from error


def _read_shards(
    path: Path, files: Mapping[str, str], groups: tuple[str, ...] | None, into: Groups | None
) -> Groups:
    from pwm.runtime.shards import file_sha256, read_shards

    found = {file.name for file in path.glob("*.safetensors")}
    if found != set(files):
        raise _damaged(path / _INDEX, f"shards are missing or too many: {found ^ set(files)}")
    try:
        for name, digest in files.items():
            if file_sha256(path / name) != digest:
                raise _damaged(path / name, "its checksum differs")
    except OSError as error:
        raise _damaged(path, str(error)) from error
    return read_shards(path, groups, into)


def rebuild(path: Path, build: Callable[[], M], state: Mapping[str, Tensor]) -> M:
    """A module as a checkpoint describes it, with the checkpoint's tensors.

    It is made without memory first, so that a description that does not fit the tensors is refused
    before it costs anything.

    Args:
        path: the checkpoint, for messages.
        build: makes the module from the checkpoint's JSON part.
        state: its tensors by name.

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


def step_name(step: int) -> str:
    """Directory name of a training checkpoint, sorting by step."""
    return f"step_{step:09d}"


def list_steps(directory: Path) -> list[Path]:
    """Training checkpoints in a directory, oldest first."""
    return sorted(p for p in directory.glob("step_*") if is_checkpoint(p))


def save_step(
    directory: Path,
    kind: str,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    meta: Mapping[str, Any],
    keep_last: int,
) -> None:
    """Write a training checkpoint, then delete all but it and the ``keep_last`` - 1 before it.

    What a killed writer left, and checkpoints of later steps, which a run that had to fall back
    past them makes anew, go too.

    Args:
        directory: of the run's checkpoints.
        kind: as :func:`save_checkpoint` takes it.
        step: updates done; joins ``meta``.
        tensors: everything that training changes, random states included.
        meta: everything else that :func:`load_latest` must give back.
        keep_last: how many to keep, at least 1.
    """
    newest = directory / step_name(step)
    save_checkpoint(newest, kind, tensors, {"step": step, **meta})
    delete_old_steps(directory, newest, keep_last)


def delete_old_steps(directory: Path, newest: Path, keep_last: int) -> None:
    """Delete all training checkpoints but ``newest`` and the ``keep_last`` - 1 before it."""
    until_now = [path for path in list_steps(directory) if path <= newest]
    delete_steps(directory, keep=until_now[-max(keep_last, 1) :])


def delete_steps(directory: Path, keep: Collection[Path] = ()) -> None:
    """Delete training checkpoints, whole or not, oldest first, apart from those to keep."""
    for path in sorted(directory.glob("step_*")):
        if path not in keep:
            clear_step(path)


def clear_step(path: Path) -> None:
    """Delete a training checkpoint, whole or not, if there is one."""
    if path.is_symlink():  # what it leads to is not this run's
        path.unlink()
    elif path.exists():
        (path / _INDEX).unlink(missing_ok=True)  # first, so that no half of it looks whole
        shutil.rmtree(path)


def load_latest(
    directory: Path,
    kind: str,
    warn: Callable[[str], object] | None = None,
    layout: Callable[[], Groups | None] | None = None,
) -> Checkpoint | None:
    """The newest whole training checkpoint, or None if none was ever written.

    A damaged one is passed over; ``warn``, if given, is called with a sentence that says so.
    ``layout`` is as for :func:`load_checkpoint`.

    Raises:
        PwmError: if there are some and none is whole, or one is of another kind or a newer format.
    """
    steps = list_steps(directory)
    for path in reversed(steps):
        try:
            return load_checkpoint(path, kind, layout=layout)
        except DamagedCheckpointError as error:
            if warn is not None:
                warn(f"{error} Falling back to the one before.")
    if steps:
        raise PwmError(
            f"none of the {len(steps)} checkpoints in {directory} is whole; delete {directory} to "
            "begin anew."
        )
    return None


def require_same_data(checkpoint: Checkpoint, digest: str, data: str) -> None:
    """Refuse to go on training on other data than the checkpoint's ``data`` digest names.

    Raises:
        PwmError: if the store at ``data`` is not as it was.
    """
    if checkpoint.meta.get("data", digest) != digest:
        raise PwmError(
            f"{data} has changed since {checkpoint.path} was made from it; put it back as it was "
            "to go on, or give another out= to train on what it is now."
        )


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
