"""LeRobot datasets: a directory with ``meta/info.json`` and Parquet files in ``data/chunk-000``.

Files hold one episode (version 2) or several (version 3), whose rows ``episode_index`` tells
apart. Pictures and videos are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pwm.core.errors import PwmError

SUFFIX = ".parquet"
_INFO = Path("meta/info.json")
_OBSERVATION = "observation."
_COLUMNS = {
    "action": "actions",
    "next.reward": "rewards",
    "reward": "rewards",
    "next.success": "success",
    "next.terminated": "terminated",
}


def dataset_files(source: Path) -> list[Path]:
    """The Parquet files of a dataset; empty if a directory is none."""
    if not (source / _INFO).is_file():
        return []
    return [*(source / "data").glob(f"*/*{SUFFIX}")]


def episodes(path: Path) -> dict[str, dict[str, Any]]:
    """The episodes of a file by name, as columns by the names of plain arrays.

    Raises:
        PwmError: if pyarrow is not installed, or the file cannot be read.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise PwmError(f"{path} needs pyarrow: pip install 'pwm[lerobot]'.") from error
    try:
        table = parquet.read_table(path)
        columns = {name: _array(table.column(name)) for name in table.column_names}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise PwmError(
            f"{path} is no Parquet file, or damaged ({error}); fetch it again."
        ) from error
    number = columns.get("episode_index")
    if number is None:
        raise PwmError(f"{path} has no episode_index; give a dataset of LeRobot.")
    starts = np.flatnonzero(np.diff(number.reshape(-1), prepend=np.nan) != 0)
    ends = [*starts[1:].tolist(), len(number)]
    return {
        f"episode_{int(number[first])}": _columns(columns, first, end)
        for first, end in zip(starts.tolist(), ends, strict=True)
    }


def _columns(columns: dict[str, np.ndarray | None], first: int, end: int) -> dict[str, Any]:
    part = {name: array[first:end] for name, array in columns.items() if array is not None}
    found: dict[str, Any] = {_COLUMNS[name]: part[name] for name in part if name in _COLUMNS}
    obs = {
        name.removeprefix(_OBSERVATION): array
        for name, array in part.items()
        if name.startswith(_OBSERVATION)
    }
    ends = np.arange(end - first) == end - first - 1
    return found | {"observations": obs, "dones": ends}


def _array(column: Any) -> np.ndarray | None:
    """A column of numbers, or of vectors of one size, as an array; None for any other."""
    import pyarrow as pa

    values, shape = column.combine_chunks(), [len(column)]
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        inner = values.flatten()
        size, rest = divmod(len(inner), max(len(values), 1))
        if rest:
            return None
        values, shape = inner, [*shape, size]
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    return values.to_numpy(zero_copy_only=False).reshape(shape)
