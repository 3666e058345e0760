"""The JSON file of a checkpoint, ``checkpoint.json``: its fields, checks and older formats."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.versions import versions

INDEX = "checkpoint.json"
ABOVE = "../"
_SINGLE, _SHARDED, _SHARING = 2, 3, 4  # formats; the last is the first with groups in ABOVE

FileName = Annotated[str, msgspec.Meta(pattern=r"^(\.\./)?[A-Za-z0-9_.-]+\.safetensors\Z")]


class StoredGroup(msgspec.Struct):
    """Where a group of tensors is, and its file's SHA-256."""

    file: FileName
    sha256: str


class Index(msgspec.Struct):
    """The file's content, in the newest of its formats.

    Attributes:
        format: a number.
        kind: of the checkpoint, such as ``"policy"``.
        versions: of the libraries that wrote it.
        meta: everything that is not a tensor.
        groups: each group's file; empty where there are shards.
        shards: SHA-256 by file name, where each of several files has parts of all groups.
    """

    format: int
    kind: str
    versions: dict[str, str]
    meta: dict[str, Any]
    groups: dict[str, StoredGroup] = {}
    shards: dict[FileName, str] | None = None

    def __post_init__(self) -> None:
        if (self.shards is None) == (self.format == _SHARDED):
            raise ValueError("its tensors are not where its format has them")
        if self.format != _SHARING and any(name.startswith(ABOVE) for name in self.files()):
            raise ValueError("its format has no files outside its directory")

    def files(self) -> dict[str, str]:
        """SHA-256 of each file that holds tensors, by name."""
        if self.shards is not None:
            return self.shards
        return {group.file: group.sha256 for group in self.groups.values()}


class DamagedCheckpointError(PwmError):
    """A checkpoint that is not what was written: truncated, edited, or with a file missing."""

    def __init__(self, file: Path, how: str) -> None:
        super().__init__(f"{file} is damaged ({how}); use another checkpoint.")


def write_index(path: Path, kind: str, meta: Mapping[str, Any], **tensors: Any) -> None:
    """Commit a checkpoint in a directory with its files; ``groups`` or ``shards`` as in `Index`."""
    version = _SHARDED
    if (groups := tensors.get("groups")) is not None:
        shares = any(group["file"].startswith(ABOVE) for group in groups.values())
        version = _SHARING if shares else _SINGLE
    index = {"format": version, "kind": kind, "versions": versions(), **tensors, "meta": meta}
    index = json.loads(json.dumps(index))  # as it will be read
    index["checksum"] = _checksum(index)
    write_atomically(path / INDEX, json.dumps(index, indent=1).encode())


def read_index(path: Path, kind: str) -> Index:
    """Read and check the JSON file of a checkpoint; raises PwmError if it is not as it must be."""
    file = path / INDEX
    if not file.is_file():
        inside = sorted(found.parent.name for found in path.glob(f"*/{INDEX}"))
        meant = (
            f"give one of the {len(inside)} in it, such as {path / inside[0]}"
            if inside
            else (
                "check the path" if path.is_dir() else "there is no such directory; check the path"
            )
        )
        raise PwmError(f"{path} is not a checkpoint: it has no {INDEX}; {meant}.")
    try:
        content = json.loads(file.read_bytes())
        if content.pop("checksum", None) != _checksum(content):
            raise ValueError("its checksum differs")
        version = content["format"]
        if version not in (_SINGLE, _SHARDED, _SHARING, *_MIGRATIONS):
            raise PwmError(
                f"{path} has checkpoint format {version}, this version of pwm reads up to "
                f"{_SHARING}; upgrade pwm."
            )
        while content["format"] in _MIGRATIONS:
            content = _MIGRATIONS[content["format"]](content)
        index = msgspec.convert(content, Index)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedCheckpointError(file, str(error)) from error
    if index.kind != kind:
        raise PwmError(f"{path} holds a {index.kind} checkpoint, expected a {kind} one.")
    return index


def _checksum(index: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _migrate_1(index: dict[str, Any]) -> dict[str, Any]:
    """Format 1 left a group's name to its file's name, and recorded no library versions."""
    files = index.pop("files")
    groups = {
        name.rpartition("-")[0]: {"file": name, "sha256": digest} for name, digest in files.items()
    }
    return {**index, "format": 2, "versions": {}, "groups": groups}


_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _migrate_1}
"""From a format's number to the function that turns its index into the next format's."""
