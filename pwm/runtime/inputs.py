"""What lies at the paths that a run reads from: its content decides, not how a path is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pwm.core.errors import PwmError
from pwm.core.fingerprints import MadeOf, changed, fingerprint
from pwm.core.layout import MANIFEST_NAME
from pwm.core.settings import input_settings
from pwm.runtime.checkpoint_index import INDEX
from pwm.runtime.grouped import is_grouped, read_members

_STEPS = "checkpoints"  # in a run directory


def inputs_made_of(config: Any, tasks: Iterable[str] | None = None) -> MadeOf:
    """Fingerprints of what lies at the paths that a config reads from.

    Args:
        config: of a command.
        tasks: of episode stores and directories of policies only what is of these tasks counts,
            task by task; all at once by default.
    """
    names = None if tasks is None else list(tasks)
    found: MadeOf = {}
    for name in input_settings(config):
        given = getattr(config, name)
        paths = given if isinstance(given, list) else [given]
        contents = [_content(Path(path), names) for path in paths if path is not None]
        if len(contents) == 1:
            found |= {f"{_called(name)}{of}": digest for of, digest in contents[0].items()}
        elif contents:
            found[_called(name)] = fingerprint(contents)
    return found


def is_same_input(setting: str, before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a setting's path is known to lead to what it led to before, wherever that is."""
    of_setting = [name for name in now if name.startswith(_called(setting)) and name in before]
    return bool(of_setting) and not changed(before, {name: now[name] for name in of_setting})


def _called(setting: str) -> str:
    return f"{setting}="


def _content(path: Path, tasks: list[str] | None) -> MadeOf:
    """Fingerprints of all or by task; none where nothing is, or nothing that can be read."""
    try:
        if (path / MANIFEST_NAME).is_file():
            return _of_store(json.loads((path / MANIFEST_NAME).read_bytes()), tasks)
        indices = _indices(path)
        if tasks is not None and "" not in indices:
            return {_of(n): fingerprint(indices[n].read_bytes()) for n in tasks if n in indices}
        digests = [fingerprint(index.read_bytes()) for _, index in sorted(indices.items())]
        return {"": fingerprint(digests)} if digests else {}
    except (OSError, ValueError, LookupError, TypeError, PwmError):
        return {}  # whoever reads it says why


def _of_store(manifest: dict[str, Any], tasks: list[str] | None) -> MadeOf:
    if tasks is None:
        return {"": fingerprint(manifest["checksum"])}
    entries = {entry["name"]: entry["segments"] for entry in manifest["tasks"]}
    return {_of(name): fingerprint(entries[name]) for name in tasks if name in entries}


def _of(task: str) -> str:
    return f" ({task})"


def _indices(path: Path) -> dict[str, Path]:
    """The files whose checksums name the content of a path's checkpoint, or of its children's.

    Of several world models, that of each task.
    """
    if is_grouped(path):
        return {
            task: index
            for member in read_members(path)
            for index in _indices(member.path).values()
            for task in member.tasks
        }
    if (path / INDEX).is_file():
        return {"": path / INDEX}
    if steps := sorted((path / _STEPS).glob(f"step_*/{INDEX}")):
        return {"": steps[-1]}
    return {index.parent.name: index for index in path.glob(f"*/{INDEX}")}
