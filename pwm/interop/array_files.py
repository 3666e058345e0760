"""Files of plain arrays, opened as tables: HDF5, npz, Parquet, and ``torch.save``'s of tensors.

A table has named columns, each an array with a row per step: an episode, or several one after
another. D4RL's files are one such table, robomimic's one a demonstration (``data/demo_0``), and
Minari's and LeRobot's one an episode.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.interop.lerobot_data import SUFFIX, dataset_files, episodes
from pwm.interop.torch_archive import TensorDictRecord, TorchFile

HDF5, NPZ, TORCH = (".hdf5", ".h5"), (".npz",), (".pt", ".pth")
NAMES = {
    "obs": ("observations", "observation", "obs"),
    "next_obs": ("next_observations", "next_observation", "next_obs"),
    "action": ("actions", "action"),
    "reward": ("rewards", "reward"),
    "terminated": ("terminals", "terminations", "terminated", "terminal"),
    "truncated": ("timeouts", "truncations", "truncated", "timeout"),
    "done": ("dones", "done"),
    "success": ("success", "successes", "is_success"),
}
"""By column, what files call it; the first that a table has is taken."""

_LENGTHS = ("lengths", "length", "episode_lengths", "episode_length")

_NEEDED = ("obs", "action", "reward")
_DEPTH = 4  # of groups within each other


@dataclass(frozen=True)
class Table:
    """Some steps of a file.

    Attributes:
        name: of the file and of the table in it, for messages.
        columns: arrays by the names of `NAMES`; ``obs`` may be a mapping of arrays.
    """

    name: str
    columns: Mapping[str, Any]


def array_files(source: Path) -> list[Path]:
    """The files of a directory, or the one file given, in the order of their numbers.

    Empty where there is none.
    """
    if source.is_file():
        return [source] if source.suffix in (*HDF5, *NPZ, SUFFIX) else []
    found = list(source.iterdir()) if source.is_dir() else []
    files = dataset_files(source) or [path for path in found if path.suffix in (*HDF5, *NPZ)]
    return sorted(files, key=lambda path: _order(str(path.relative_to(source))))


def _order(name: str) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", name)], name


@contextmanager
def open_tables(path: Path) -> Iterator[list[Table]]:
    """The tables of a file, whose arrays are read when they are asked for.

    Raises:
        PwmError: if the file cannot be read, or holds no table.
    """
    if path.suffix in HDF5:
        with _hdf5(path) as content:
            yield _tables(path, content)
    elif path.suffix in NPZ:
        yield _tables(path, _npz(path))
    elif path.suffix == SUFFIX:
        yield _tables(path, episodes(path))
    else:
        yield _tables(path, TorchFile(path).content)


@contextmanager
def _hdf5(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import h5py
    except ImportError as error:
        raise PwmError(f"{path} needs h5py: pip install 'pwm[hdf5]'.") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise PwmError(f"{path} is no HDF5 file, or damaged ({error}); fetch it again.") from error
    with file:
        yield file


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise PwmError(
            f"{path} cannot be read ({error}); give an npz file of plain arrays, without objects."
        ) from error


def _tables(path: Path, content: Any) -> list[Table]:
    tables = list(_found(str(path), content, 0))
    if not tables:
        raise PwmError(
            f"{path} has no arrays of episodes; {', '.join(NAMES['obs'])}, actions and rewards are "
            "looked for, in it or in its groups."
        )
    return tables


def _found(name: str, content: Any, depth: int) -> Iterator[Table]:
    if isinstance(content, TensorDictRecord):
        content = content.state.get("_tensordict") if isinstance(content.state, dict) else None
    if depth > _DEPTH:
        return
    if isinstance(content, list | tuple):
        for number, entry in enumerate(content):
            yield from _found(f"{name}[{number}]", entry, depth + 1)
    elif isinstance(content, Mapping):
        columns = _columns(content)
        if all(column in columns for column in _NEEDED):
            lengths = next((content[key] for key in _LENGTHS if key in content), None)
            yield from _divided(name, columns, lengths)
        elif "action" in columns:
            lacking = " and ".join(column for column in _NEEDED if column not in columns)
            held = ", ".join(map(str, list(content)[:20]))
            raise PwmError(f"{name} has actions and no {lacking}; it holds {held}.")
        else:
            for key in sorted((k for k in content if isinstance(k, str)), key=_order):
                if isinstance(content[key], Mapping | TensorDictRecord | list | tuple):
                    yield from _found(f"{name}/{key}", content[key], depth + 1)


def _columns(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The columns of a table, by the names used here."""
    found = {}
    for column, names in NAMES.items():
        name = next((name for name in names if name in content), None)
        if name is not None and (column in ("obs", "next_obs") or not _is_group(content[name])):
            value = content[name]
            found[column] = value.state["_tensordict"] if _is_record(value) else value
    return found


def _is_record(value: Any) -> bool:
    return isinstance(value, TensorDictRecord) and isinstance(value.state, dict)


def _is_group(value: Any) -> bool:
    return isinstance(value, Mapping | TensorDictRecord)


def _divided(name: str, columns: dict[str, Any], lengths: Any) -> Iterator[Table]:
    """A table, or one for each entry of lists of arrays and of arrays with an axis of episodes.

    ``lengths`` says how many steps of each episode are no padding, where a file has them.
    """
    action = columns["action"]
    if not isinstance(action, Sequence) and len(action.shape) != 3:
        yield Table(name, columns)
        return
    counts = [(k, len(part)) for k, v in columns.items() for part in _parts_of(v)]
    if any(count != len(action) for _, count in counts):
        told = ", ".join(f"{count} of {column}" for column, count in counts)
        raise PwmError(
            f"{name} has {told}; each needs an entry for every episode, and arrays the axes "
            "(episodes, rows, size)."
        )
    for number in range(len(action)):
        entries = {column: _entry(value, number) for column, value in columns.items()}
        title = f"{name}[{number}]"
        if lengths is not None:
            entries = _without_padding(title, entries, lengths, number)
        yield Table(title, entries)


def _without_padding(
    name: str, columns: dict[str, Any], lengths: Any, number: int
) -> dict[str, Any]:
    """The columns of an episode to its length, which counts actions."""
    steps = len(columns["action"])
    try:
        length = int(rows(lengths).reshape(-1)[number])
    except (IndexError, TypeError, ValueError) as error:
        raise PwmError(f"{name} has no length among those of the file ({error}).") from error
    if not 1 <= length <= steps:
        raise PwmError(f"{name} has length {length} and {steps} actions; give 1 to {steps}.")

    def cut(column: Any) -> Any:
        if isinstance(column, Mapping):
            return {key: cut(value) for key, value in column.items()}
        return column[: len(column) - (steps - length)]

    return {column: cut(value) for column, value in columns.items()}


def _parts_of(column: Any) -> list[Any]:
    if not isinstance(column, Mapping):
        return [column]
    return [part for value in column.values() for part in _parts_of(value)]


def _entry(column: Any, number: int) -> Any:
    if isinstance(column, Mapping):
        return {key: _entry(value, number) for key, value in column.items()}
    return column[number]


def holds_tables(path: Path) -> bool:
    """Whether a file of ``torch.save`` has arrays of episodes that are no file of TD-MPC2."""
    return next(_found(str(path), TorchFile(path).content, 0), None) is not None


def rows(column: Any, first: int = 0, end: int | None = None) -> np.ndarray:
    """Some rows of a column as an array."""
    part = column[first:end]
    return np.asarray(part.detach().numpy() if isinstance(part, Tensor) else part)
