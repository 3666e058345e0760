"""Episodes of a Minari dataset (Farama Foundation, the format of published offline data).

A step of a dataset is a step of its environment. Observations are flattened as Gymnasium's
FlattenObservation does in the task's environment, whose order of a dictionary's entries need not be
the dataset's, and actions rescaled from the dataset's action space to [-1, 1].
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pwm.core.action_bounds import shown, with_bounds
from pwm.core.errors import PwmError
from pwm.core.progress import progress_bar
from pwm.core.signals import StopSignals
from pwm.core.suites import Task
from pwm.data.episode import Episode, successes
from pwm.data.store import EpisodeStore
from pwm.interop.array_data import ArraySource
from pwm.interop.minari_environment import (
    as_declared,
    differences,
    in_order_of,
    order_of,
    recorded_spec,
    require_same_entries,
    wrapper_names,
)

if TYPE_CHECKING:
    from gymnasium import spaces
    from minari.dataset.minari_storage import MinariStorage

PREFIX = "minari:"
"""Begins a ``source=`` that is a Minari dataset: its id, or the path of its directory."""

_METADATA = "metadata.json"
_SUCCESS_KEYS = ("success", "is_success")
_LONGEST_BEHAVIOUR = 64
_BLOCK_BYTES = 2**26  # of observations that are committed at a time


class MinariSource:
    """A dataset on this machine that fits a task.

    Attributes:
        task: the dataset's task, with the bounds of its actions.
        description: which dataset it is, for a store's sources.
        differences: of its environment and the task's, a clause each.
        episodes: how many it has.
    """

    def __init__(self, source: str, task: Task) -> None:
        """Opens a dataset and compares it with a task.

        Args:
            source: ``minari:`` and the id of a dataset that is on this machine, or the path of one.
            task: the dataset's task.

        Raises:
            PwmError: if Minari is not installed, there is no such dataset, or it does not fit.
        """
        from pwm.envs import check_spaces

        try:
            import minari  # noqa: F401
        except ImportError as error:
            raise PwmError(
                "Minari datasets need minari: pip install 'pwm-worldmodels[minari]'."
            ) from error
        path = _find(source.removeprefix(PREFIX))
        self._storage, metadata = _open(path)
        name = f"dataset {metadata['dataset_id']}"
        if task.action_repeat != 1:
            raise PwmError(
                f"{name} has every step of its environment, and task '{task.name}' repeats an "
                f"action {task.action_repeat} times; set action_repeat to 1."
            )
        self._low, self._high = (
            bound.astype(np.float64)
            for bound in check_spaces(
                task, self._storage.observation_space, self._storage.action_space, name
            )
        )
        self.task = with_bounds(task, self._low, self._high)
        spec = recorded_spec(metadata)
        self._space = as_declared(self._storage.observation_space, metadata["observation_space"])
        self.differences = self._compared(name, spec)
        self.episodes = int(metadata["total_episodes"])
        self._behaviour = _behaviour(metadata)
        self.description = {
            "dataset": metadata["dataset_id"],
            "minari_version": metadata["minari_version"],
            "metadata_sha256": hashlib.sha256((path / _METADATA).read_bytes()).hexdigest(),
            "env_id": env_id if isinstance(env_id := spec.get("id"), str) else None,
            "algorithm": metadata.get("algorithm_name"),
            "action_low": self._low.tolist(),
            "action_high": self._high.tolist(),
        }
        if (order := order_of(self._space)) != order_of(self._storage.observation_space):
            self.description["observation_order"] = order

    def _compared(self, name: str, spec: Mapping[str, Any]) -> list[str]:
        """The differences to the task's environment, whose order of entries is taken over."""
        from pwm.envs import GymnasiumEnv

        try:
            env = GymnasiumEnv(replace(self.task, action_low=None, action_high=None))
        except PwmError as error:
            return [f"they cannot be compared with the task's environment ({error})"]
        env.close()
        low, high = env.action_bounds
        if not (np.allclose(low, self._low) and np.allclose(high, self._high)):
            through = f" through {', '.join(added)}" if (added := wrapper_names(spec)) else ""
            raise PwmError(
                f"the dataset's action bounds are others than those of {self.task.env_id} "
                f"({shown(self._low)} to {shown(self._high)}{through}, and {shown(low)} to "
                f"{shown(high)}), so the same number would be another action; give the environment "
                "that the data are of."
            )
        require_same_entries(name, self._space, env.native_observation_space, self.task)
        self._space = in_order_of(self._space, env.native_observation_space)
        return list(
            differences(self.task, spec, env.made_with, self._space, env.native_observation_space)
        )

    def read(self) -> Iterator[tuple[Episode, int]]:
        """The episodes in their order, one in memory at a time, and how many actions were clipped.

        Raises:
            PwmError: if the files are damaged.
        """
        numbers = range(self.episodes)
        try:
            described = iter(self._storage.get_episode_metadata(numbers))
            for data in self._storage.get_episodes(numbers):
                yield self._episode(data, next(described).get("seed"))
        except (OSError, KeyError, ValueError, AssertionError) as error:
            raise PwmError(
                f"dataset {self.description['dataset']} is damaged ({error}); fetch it again."
            ) from error

    def _episode(self, data: dict[str, Any], seed: object) -> tuple[Episode, int]:
        obs = flatten_steps(self._space, data["observations"])
        raw = np.asarray(data["actions"], np.float64)
        steps = len(raw)
        scaled = 2 * (raw - self._low) / (self._high - self._low) - 1
        action = np.clip(scaled, -1, 1).astype(np.float32)
        outside = (np.abs(scaled) > 1 + 1e-6).reshape(steps, -1).any(1)
        episode = Episode(
            obs=obs,
            action=action,
            reward=np.asarray(data["rewards"], np.float32),
            terminated=np.asarray(data["terminations"], bool),
            success=reported_success(data["infos"], steps),
            behaviour=self._behaviour,
            seed=seed if isinstance(seed, int) and seed < 2**63 else -1,
        )
        return episode, int(outside.sum())


def fill_store(
    source: MinariSource | ArraySource,
    store: EpisodeStore,
    key: str,
    limit: int | None,
    skip_faults: bool,
    signals: StopSignals,
) -> Counter[str]:
    """Append a dataset's episodes to a store, after those that are there of the same source.

    Args:
        source: the dataset.
        store: open for appending.
        key: of the store's source.
        limit: episodes at most.
        skip_faults: leave out and count what cannot be stored, instead of stopping at it.
        signals: after a commit the function stops when one was received.

    Returns:
        How many episodes are ``stored`` and were ``skipped``; of the stored ones, how many steps'
        actions were ``clipped``, how many episodes are ``longer`` than the task's, and of how many
        the success is ``unknown``.

    Raises:
        PwmError: for an episode that cannot be stored, or a damaged dataset.
        Interrupted: when a signal asked for it.
    """
    task, counts = source.task, Counter[str]()
    done = store.count(task.name, key)
    waiting: list[Episode] = []
    with progress_bar() as progress:
        bar = progress.add_task("convert", total=source.episodes, note=task.name)
        for number, (episode, clipped) in enumerate(source.read()):
            if counts["stored"] == limit:
                break
            progress.advance(bar)
            if fault := episode.fault(task):
                if not skip_faults:
                    raise PwmError(
                        f"episode {number} of {source.description['dataset']} cannot be "
                        f"stored: {fault}; on_error=skip leaves such episodes out and counts them."
                    )
                counts["skipped"] += 1
                continue
            longer = len(episode.action) > task.episode_length
            unknown = episode.success is None
            counts.update(stored=1, clipped=clipped, longer=int(longer), unknown=int(unknown))
            if counts["stored"] > done:
                waiting.append(episode)
            if sum(kept.obs.nbytes for kept in waiting) > _BLOCK_BYTES:
                store.append(task.name, waiting, key)
                waiting = []
                signals.raise_if_requested(
                    f"stopped; what is converted is kept in {store.path}. The same command goes "
                    "on from there."
                )
    store.append(task.name, waiting, key)
    return counts


def flatten_steps(space: spaces.Space[Any], values: Any) -> np.ndarray:
    """Observations of several steps as rows, (steps, flatdim) float32.

    Entries are in the order of ``gymnasium.spaces.utils.flatten``.

    Args:
        space: a box, or a dictionary or tuple of boxes, of one step.
        values: of the same structure, with the steps as each array's first axis.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        parts = [flatten_steps(part, values[key]) for key, part in space.spaces.items()]
        return np.concatenate(parts, 1)
    if isinstance(space, spaces.Tuple):
        pairs = zip(space.spaces, values, strict=True)
        return np.concatenate([flatten_steps(part, value) for part, value in pairs], 1)
    rows = np.asarray(values)
    return rows.reshape(len(rows), -1)


def reported_success(infos: Any, steps: int) -> np.ndarray | None:
    """(T,) bool from infos that have a number per step, or one more for the reset, else None."""
    for key in _SUCCESS_KEYS:
        if not isinstance(infos, dict) or key not in infos:
            continue
        values = np.asarray(infos[key])
        if values.dtype.kind in "fiub" and values.size in (steps, steps + 1):
            found = successes(values.reshape(-1)[-steps:])
            if found is not None:
                return found
    return None


def _find(name: str) -> Path:
    """The directory of a dataset's files."""
    given = Path(name)
    for path in (given / "data", given):
        if (path / _METADATA).is_file():
            return path
    from minari.storage import get_dataset_path

    path = get_dataset_path(name) / "data"
    if (path / _METADATA).is_file():
        return path
    raise PwmError(
        f"there is no Minari dataset {name} on this machine, neither as a directory nor in "
        f"{get_dataset_path()}; give the path of one, or fetch it with `minari download {name}`."
    )


def _open(path: Path) -> tuple[MinariStorage, dict[str, Any]]:
    """The files and their metadata, of a version and with spaces that are stated.

    Minari makes the environment that a dataset names where the dataset does not state its spaces.
    That would run whatever the file says, so such a dataset is refused.
    """
    import minari
    from minari.dataset.minari_storage import MinariStorage

    try:
        metadata = json.loads((path / _METADATA).read_bytes())
        missing = {"observation_space", "action_space", "dataset_id", "total_episodes"} - set(
            metadata
        )
        if missing:
            raise PwmError(
                f"{path / _METADATA} does not state its {', '.join(sorted(missing))}; fetch a "
                "version of the dataset that does, or store its arrays yourself."
            )
        if metadata.get("minari_version") not in minari.supported_dataset_versions:
            raise PwmError(
                f"{path} was written by Minari {metadata.get('minari_version')}, and the installed "
                f"{minari.__version__} does not read it; install that version."
            )
        return MinariStorage.read(path), metadata
    except ImportError as error:
        raise PwmError(f"{path} needs a package that is not installed: {error}.") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        raise PwmError(f"{path} is no Minari dataset ({error}); fetch it again.") from error


def _behaviour(metadata: dict[str, Any]) -> str:
    name = metadata.get("algorithm_name")
    usable = isinstance(name, str) and 0 < len(name) <= _LONGEST_BEHAVIOUR and name.isprintable()
    return str(name) if usable else "unknown"
