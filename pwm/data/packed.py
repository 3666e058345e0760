"""A task's rows and episode table in one small file, which gives back the same bytes.

The file is safetensors, compressed by xz: any program with the two opens it. It holds

- ``half`` (columns, rows) float16 and ``full`` (columns, rows) float32: the columns of observation,
  action and reward, each in float16 if that holds every one of its values exactly,
- ``is_half`` (obs_dim + action_dim + 1,) uint8: which columns are in ``half``, in that order,
- ``flags`` (2, rows) uint8: terminated and success,
- ``episodes`` (episodes, 40) uint8: the records of ``episodes.bin`` as they are.

Columns are stored one by one, since a column's values resemble each other.
"""

from __future__ import annotations

import lzma

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from pwm.core.errors import PwmError

_FLAGS = ("terminated", "success")
_HEADER_BYTES = 4096  # of safetensors with five tensors, with room to spare
_FILTERS = [
    {
        "id": lzma.FILTER_LZMA2,
        "preset": 6 | lzma.PRESET_EXTREME,
        "dict_size": 2**22,
        "lc": 2,
        "lp": 1,
        "pb": 1,
    }
]


def holds_exactly(values: np.ndarray) -> np.ndarray:
    """Which columns of (rows, columns) float32 hold nothing but float16's values, (columns,) bool.

    NaN and infinity are such values, if their bits survive.
    """
    with np.errstate(over="ignore"):
        back = values.astype(np.float16).astype(np.float32)
    return (back.view(np.uint32) == values.view(np.uint32)).all(0)


def pack(rows: np.ndarray, table: np.ndarray) -> bytes:
    """The file's content.

    Args:
        rows: (rows,) of `pwm.data.episode.row_dtype`.
        table: (episodes,) of `pwm.data.episode.EPISODE_DTYPE`.
    """
    columns = np.concatenate([rows["obs"], rows["action"], rows["reward"][:, None]], 1)
    is_half = holds_exactly(columns)
    tensors = {
        "half": columns[:, is_half].T.astype(np.float16, order="C"),
        "full": np.ascontiguousarray(columns[:, ~is_half].T),
        "is_half": is_half.astype(np.uint8),
        "flags": np.stack([rows[name] for name in _FLAGS]),
        "episodes": np.ascontiguousarray(table).view(np.uint8).reshape(len(table), -1),
    }
    return lzma.compress(safetensors.numpy.save(tensors), filters=_FILTERS)


def unpack(
    data: bytes, row: np.dtype, entry: np.dtype, counts: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of :func:`pack`, given the types of a row and of an episode's entry.

    ``counts`` are the rows and episodes that there must be. Raises PwmError, a clause without a
    full stop, if the content is damaged or of other sizes.
    """
    try:
        return _unpacked(data, row, entry, counts)
    except (lzma.LZMAError, SafetensorError, LookupError, ValueError, EOFError) as error:
        raise PwmError(f"the file does not hold what was packed ({error})") from error


def _unpacked(
    data: bytes, row: np.dtype, entry: np.dtype, counts: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    largest = counts[0] * row.itemsize + counts[1] * entry.itemsize + row.itemsize + _HEADER_BYTES
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    content = decompressor.decompress(data, largest)
    if not decompressor.eof:
        raise ValueError("it is truncated, or longer than its rows")
    tensors = safetensors.numpy.load(content)
    rows = np.zeros(counts[0], row)
    obs_dim, action_dim = row["obs"].shape[0], row["action"].shape[0]
    is_half = tensors["is_half"].astype(bool)
    columns = np.empty((obs_dim + action_dim + 1, len(rows)), np.float32)
    columns[is_half], columns[~is_half] = tensors["half"], tensors["full"]
    rows["obs"] = columns[:obs_dim].T
    rows["action"] = columns[obs_dim:-1].T
    rows["reward"] = columns[-1]
    for name, values in zip(_FLAGS, tensors["flags"], strict=True):
        rows[name] = values
    table = tensors["episodes"].reshape(-1).view(entry)
    if len(table) != counts[1]:
        raise ValueError(f"it has {len(table)} episodes and {counts[1]} are recorded")
    return rows, table
