"""TD-MPC2's MT30 and MT80 data files, read without their code and written for its loader.

Each file is a ``torch.save`` of one TensorDict with batch size (episodes, rows): ``obs``,
``action``, ``reward``, ``task`` and in newer files ``terminated``. Observations and actions are
zero-padded to the suite's largest, tasks are ids of the suite, and action and reward of row t led
to observation t, so those of row 0 mean nothing (NaN). MT80's files cut dm_control's episodes of
500 decision steps into pieces of 100.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.core.files import replacing
from pwm.core.suites import SUITES, Suite, Task
from pwm.data.episode import Episode
from pwm.data.store import EpisodeStore
from pwm.interop.torch_archive import TensorDictRecord, TorchFile

BEHAVIOUR = "replay"  # the published episodes are replay buffers of agents in training
PUBLISHED_FILES = {"mt30": 4, "mt80": 20}

_FIELDS = ("obs", "action", "reward", "task", "terminated")
_ACTION_TOLERANCE = 1e-6
_FLOATS = (torch.float16, torch.float32, torch.float64)
_INTEGERS = (torch.int16, torch.int32, torch.int64, torch.uint8)


def find_files(source: Path) -> list[Path]:
    """The data files of a directory in the numeric order of their names, or the one file given.

    Raises:
        PwmError: if there is none.
    """
    if source.is_file():
        return [source]
    found = sorted(source.glob("*.pt"), key=_numeric) if source.is_dir() else []
    if not found:
        raise PwmError(
            f"{source} has no .pt file; give the directory of TD-MPC2's chunk_*.pt files, or one "
            "of them."
        )
    return found


def _numeric(path: Path) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", path.stem)], path.name


@dataclass(frozen=True)
class Block:
    """Some of a file's episodes of one task, without padding."""

    obs: np.ndarray  # (n, T+1, obs_dim) float32
    action: np.ndarray  # (n, T, action_dim) float32
    reward: np.ndarray  # (n, T) float32
    terminated: np.ndarray  # (n, T) bool
    faults: dict[int, str]  # why an episode cannot be used, by its position among the n

    def episodes(self) -> list[Episode]:
        """As episodes of a store; success is not published, and so not known."""
        columns = zip(self.obs, self.action, self.reward, self.terminated, strict=True)
        return [Episode(*arrays, behaviour=BEHAVIOUR) for arrays in columns]


def padded_entries(content: Any) -> dict[str, Any] | None:
    """The tensors of episodes of one length, by field, of what a file holds.

    That is a TensorDict, a plain dictionary of tensors with an axis of episodes, or a list with
    one or the other for each episode. In the latter two the actions of row 0 must be NaN: they
    might as well be those that were chosen for the observations of their rows.

    Returns:
        None for anything else.
    """
    if isinstance(content, TensorDictRecord):
        entries = content.state.get("_tensordict") if isinstance(content.state, dict) else None
        return entries if isinstance(entries, dict) else None
    entries = _stacked(content) if isinstance(content, list | tuple) else content
    if not isinstance(entries, dict):
        return None
    obs, action = entries.get("obs"), entries.get("action")
    if not isinstance(obs, Tensor) or not isinstance(action, Tensor):
        return None
    whole = obs.dim() == action.dim() == 3 and action.shape[1] > 0
    return entries if whole and bool(action[:, 0].isnan().all()) else None


def _stacked(episodes: Sequence[Any]) -> dict[str, Any] | None:
    """Episodes of one length and the same fields as one; None if they are no such."""
    found = [e if isinstance(e, dict) else padded_entries(e) for e in episodes]
    shapes = {
        tuple((name, e[name].shape) for name in _FIELDS if isinstance(e.get(name), Tensor))
        for e in found
        if e is not None
    }
    if not found or None in found or len(shapes) != 1:
        return None
    fields = dict(shapes.pop())
    if len(fields.get("obs", ())) != 2:
        return None
    return {name: torch.stack([e[name] for e in found if e is not None]) for name in fields}


def _by_row(name: str, tensor: Tensor) -> Tensor:
    """A field with one number a row as (episodes, rows), where files also have (..., 1)."""
    if name in ("obs", "action"):
        return tensor
    return tensor.squeeze(-1) if tensor.dim() == 3 and tensor.shape[-1] == 1 else tensor


class Chunk:
    """One data file, memory-mapped.

    Attributes:
        path: the file.
        file: its reader.
        episodes: E, the episodes in it.
        rows: rows per episode, T+1.
        row_bytes: size of a row in float32, with its padding.
    """

    def __init__(self, path: Path, suite: Suite) -> None:
        """Opens a file made for a suite.

        Raises:
            PwmError: if it cannot be read, or does not hold the suite's data.
        """
        self.path, self.suite = path, suite
        self.file = TorchFile(path)
        tensors = self._tensors()
        self._obs, self._action = tensors["obs"].numpy(), tensors["action"].numpy()
        self._reward, self._task = tensors["reward"].numpy(), tensors["task"].numpy()
        self._terminated = tensors["terminated"].numpy() if "terminated" in tensors else None
        self.episodes, self.rows = self._reward.shape
        self.row_bytes = 4 * (suite.obs_dim + suite.action_dim + 2)

    def _tensors(self) -> dict[str, Tensor]:
        entries = padded_entries(self.file.content)
        if entries is None:
            raise PwmError(
                f"{self.path} holds no TensorDict of episodes; give TD-MPC2's data files (`pwm "
                "import` reads checkpoints)."
            )
        stored = {name: t for name, t in entries.items() if isinstance(t, Tensor) and not t.is_meta}
        found = {name: _by_row(name, stored[name].detach()) for name in _FIELDS if name in stored}
        if "task" not in found and "reward" in found and len(self.suite) == 1:
            found["task"] = torch.zeros(found["reward"].shape, dtype=torch.int32)
        if missing := [n for n in _FIELDS if n not in found and n != "terminated"]:
            names = ", ".join(str(name)[:50] for name in list(entries)[:20]) or "nothing"
            hint = "; name its one task as suite=" if missing == ["task"] else ""
            raise PwmError(f"{self.path} has no tensor '{missing[0]}'; it holds {names}{hint}.")
        self._check(found)
        return found

    def _check(self, tensors: dict[str, Tensor]) -> None:
        suite, shape = self.suite, tensors["task"].shape
        wanted = {
            "obs": (*shape, suite.obs_dim),
            "action": (*shape, suite.action_dim),
            "reward": shape,
            "task": shape,
            "terminated": shape,
        }
        for name, tensor in tensors.items():
            kinds = _INTEGERS if name == "task" else _FLOATS
            if name == "terminated":
                kinds = (*_FLOATS, torch.bool)
            if len(shape) != 2 or shape[1] < 2 or tensor.shape != wanted[name]:
                raise PwmError(
                    f"{self.path} has {name} of shape {tuple(tensor.shape)}, where suite "
                    f"'{suite.name}' has (episodes, rows, {suite.obs_dim}) observations, (episodes,"
                    f" rows, {suite.action_dim}) actions and (episodes, rows) otherwise"
                    f"{self._other_suite(tensors)}."
                )
            if tensor.dtype not in kinds:
                raise PwmError(f"{self.path} has {name} of {tensor.dtype}, which is not read.")

    def _other_suite(self, tensors: dict[str, Tensor]) -> str:
        sizes = tuple(tensors[name].shape[-1] for name in ("obs", "action"))
        for name in PUBLISHED_FILES:
            own = SUITES[name].obs_dim, SUITES[name].action_dim
            if sizes == own and name != self.suite.name:
                return f"; try suite={name}"
        return ""

    def task_ids(self) -> np.ndarray:
        """The task id of every episode, (E,) int64.

        Raises:
            PwmError: if an id is not of the suite, or changes within an episode.
        """
        ids = self._task[:, 0].astype(np.int64)
        changes = np.flatnonzero((self._task != self._task[:, :1]).any(1))
        if len(changes):
            raise PwmError(
                f"{self.path}: the task changes within episode {changes[0]}; give data files of "
                "whole episodes."
            )
        unknown = np.flatnonzero((ids < 0) | (ids >= len(self.suite)))
        if len(unknown):
            raise PwmError(
                f"{self.path}: episode {unknown[0]} has task id {ids[unknown[0]]}, and suite "
                f"'{self.suite.name}' has ids 0 to {len(self.suite) - 1}; give the suite that the "
                "file was made for."
            )
        return ids

    def read(self, task: Task, which: np.ndarray) -> Block:
        """Read the episodes at the positions ``which``, all of one task."""
        obs = self._obs[which].astype(np.float32, copy=False)
        action = self._action[which][:, 1:].astype(np.float32, copy=False)
        reward = self._reward[which][:, 1:].astype(np.float32, copy=False)
        flags = np.zeros(reward.shape, np.float32)
        if self._terminated is not None:
            flags = self._terminated[which][:, 1:].astype(np.float32, copy=False)
        faults: dict[int, str] = {}
        for reason, bad in _faults(task, obs, action, reward, flags):
            for position in np.flatnonzero(bad):
                faults.setdefault(int(position), reason)
        return Block(
            np.ascontiguousarray(obs[..., : task.obs_dim]),
            np.ascontiguousarray(action[..., : task.action_dim]),
            reward,
            flags > 0,
            faults,
        )


def _faults(
    task: Task, obs: np.ndarray, action: np.ndarray, reward: np.ndarray, flags: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Reasons, and which of the n episodes each concerns."""
    inner = (1, 2)
    yield "NaN or infinite observations", ~np.isfinite(obs).all(inner)
    finite = np.isfinite(action).all(inner) & np.isfinite(reward).all(1)
    yield "NaN or infinite actions or rewards after row 0", ~finite
    for what, array, size in (
        ("observations", obs, task.obs_dim),
        ("actions", action, task.action_dim),
    ):
        padding = array[..., size:]
        yield f"{what} that are not zero beyond entry {size}", (padding != 0).any(inner)
    with np.errstate(invalid="ignore"):
        yield "actions outside [-1, 1]", (np.abs(action) > 1 + _ACTION_TOLERANCE).any(inner)
    yield "a termination that is neither 0 nor 1", ((flags != 0) & (flags != 1)).any(1)


class Pieces(NamedTuple):
    """Where the fixed-length pieces of a task's stored episodes begin."""

    task: Task
    first_rows: np.ndarray  # (pieces,) rows of the store with their first observations
    unfit: int  # episodes whose length is no multiple of the piece's

    @classmethod
    def of(cls, store: EpisodeStore, task: Task, steps: int, limit: int | None) -> Pieces:
        """Cut a task's episodes, at most ``limit`` of them, into pieces of ``steps`` steps.

        A piece begins with the observation that the one before it ended with.
        """
        table = store.episodes(task.name)[:limit]
        lengths = table["length"].astype(np.int64) - 1
        fits = lengths % steps == 0
        ends = zip(table["start"][fits], (table["start"] + lengths)[fits], strict=True)
        rows = [np.arange(first, end, steps) for first, end in ends]
        return cls(task, np.concatenate([np.zeros(0, np.int64), *rows]), int((~fits).sum()))


def write_chunk(
    path: Path,
    store: EpisodeStore,
    entries: Sequence[tuple[Task, int]],
    suite: Suite,
    steps: int,
    terminated: bool,
) -> None:
    """Write one data file that TD-MPC2 loads: at every moment absent, the old one, or the new one.

    Args:
        path: the file.
        store: has the episodes.
        entries: of each the task, and the row of the store that it begins at.
        suite: gives task ids and the padded sizes.
        steps: T; an entry has T+1 rows.
        terminated: whether there is a field of that name.
    """
    from tensordict import TensorDict

    shape = (len(entries), steps + 1)
    fields = {
        "obs": np.zeros((*shape, suite.obs_dim), np.float32),
        "action": np.zeros((*shape, suite.action_dim), np.float32),
        "reward": np.zeros(shape, np.float32),
        "task": np.zeros(shape, np.int32),
    }
    if terminated:
        fields["terminated"] = np.zeros(shape, np.float32)
    for number, (task, row) in enumerate(entries):
        rows = store.rows(task.name, row, row + steps + 1)
        fields["obs"][number, :, : task.obs_dim] = rows["obs"]
        fields["action"][number, :, : task.action_dim] = rows["action"]
        fields["task"][number] = suite.id(task.name)
        for name in fields.keys() & {"reward", "terminated"}:
            fields[name][number] = rows[name]
    for name in fields.keys() & {"action", "reward", "terminated"}:
        fields[name][:, 0] = np.nan
    tensors = {name: torch.from_numpy(values) for name, values in fields.items()}
    with replacing(path) as file:
        torch.save(TensorDict(tensors, batch_size=shape), file)
