"""``pwm sample``: a few MB of real episodes of a large store, enough to extract policies from.

Of every task the best episodes are kept whole, for cloning, and of others, spread evenly from the
best to the worst, a piece each, for start states: successive rows resemble each other, so that
short pieces of many episodes show more of the states than as many rows of few. A piece keeps the
return and success of its whole episode.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically
from pwm.core.layout import MANIFEST_NAME
from pwm.core.locks import LOCK_NAME, DirectoryLock
from pwm.core.progress import console, progress_bar
from pwm.core.settings import require_inputs, setting
from pwm.core.suites import Suite, get_suite, task_names
from pwm.core.validation import require_at_least, require_seed, require_writable
from pwm.data.episode import EPISODE_DTYPE, packed_path, row_dtype
from pwm.data.manifest import Manifest, Segment, TaskRecord
from pwm.data.packed import pack
from pwm.data.ranking import best_first
from pwm.data.splits import episodes_in_split
from pwm.data.store import EpisodeStore

ROUNDING = 0.05
"""How much rounding may change a value, as a share of the change from one row to the next."""


@dataclass
class SampleConfig:
    """Settings of ``pwm sample``.

    Attributes:
        data: the episode store to take from.
        out: a new directory; it gets a packed store, which every command takes as data=.
        tasks: a suite's name, tasks joined with commas or in a list, or null for all that the
            store has episodes of.
        episodes: per task; all of them where there are fewer.
        whole: how many of those, the best (:func:`pwm.data.ranking.best_first`), are kept whole.
        rows: of a piece of each of the others; null to keep them whole too.
        seed: of where in their episodes the pieces are.
    """

    data: str = setting(MISSING, input_path=True)
    out: str = MISSING
    tasks: Any = None
    episodes: int = 120
    whole: int = 10
    rows: int | None = 51
    seed: int = 0

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 1, "episodes")
        require_at_least(self, 0, "whole")
        if self.rows is not None:
            require_at_least(self, 2, "rows")
        if self.whole > self.episodes:
            raise PwmError(f"whole={self.whole} must be at most episodes={self.episodes}.")
        require_seed(self, "seed")
        if self.tasks is not None:
            task_names(self.tasks)
        require_inputs(self)
        require_writable(self.out)


def sample(config: SampleConfig) -> Path:
    """Pack a small, well spread sample of a store's episodes, and return its directory.

    The same store and settings give the same bytes; a sample that is there already stays.

    Raises:
        PwmError: if there is no store, it lacks a task that was asked for, or ``out`` is in use.
    """
    config.validate()
    store, out = EpisodeStore.open(config.data), Path(config.out)
    suite = _suite(config, store)
    manifest = dataclasses.replace(
        Manifest.empty(suite), sources=_sources(config, store), behaviours=store.behaviours
    )
    make_directory(out)
    with DirectoryLock(out):
        if _is_made(out, manifest):
            console.print(f"{out} has this sample already; it is kept.", soft_wrap=True)
            return out
        _clear(out)
        records = {task.name: TaskRecord(task) for task in suite}
        with progress_bar() as progress:
            bar = progress.add_task("sample", total=len(suite), note="")
            for task in suite:
                progress.update(bar, note=task.name)
                if store.count(task.name):
                    segment = _write_task(config, store, task.name, out)
                    records[task.name] = TaskRecord(task, (segment,))
                progress.advance(bar)
        dataclasses.replace(manifest, records=records, packed=True).write(out)
    rows = sum(record.rows for record in records.values())
    size = sum(file.stat().st_size for file in out.iterdir())
    console.print(
        f"{len(suite)} task(s), {rows:,} rows, {size / 1e6:.1f} MB: {out}", soft_wrap=True
    )
    return out


def _suite(config: SampleConfig, store: EpisodeStore) -> Suite:
    if config.tasks is None:
        return store.suite
    wanted = get_suite(config.tasks, store.suite)
    if empty := [n for n in wanted.names if n not in store.suite or not store.count(n)]:
        raise PwmError(f"{store.path} has no episodes of {', '.join(empty)}; leave them out.")
    return Suite(wanted.name, tuple(store.suite[name] for name in wanted.names))


def _is_made(out: Path, wanted: Manifest) -> bool:
    """Whether the same sample is there already."""
    if not (out / MANIFEST_NAME).is_file():
        return False
    found = Manifest.read(out)
    return found.packed and (found.suite, found.sources) == (wanted.suite, wanted.sources)


def _clear(out: Path) -> None:
    """Deletes what a stopped sampling left; PwmError for anything else."""
    for file in sorted(out.iterdir()):
        if file.name.endswith((".safetensors.xz", ".tmp")):
            file.unlink()
        elif file.name != LOCK_NAME:
            raise PwmError(f"{out} is not empty (it has '{file.name}'); give a new directory.")


def _sources(config: SampleConfig, store: EpisodeStore) -> dict[str, dict[str, Any]]:
    """How the episodes were made, and that these are some of them."""
    settings = dataclasses.asdict(config)
    chosen = {name: settings[name] for name in ("episodes", "whole", "rows", "seed")}
    note = {"sample": {"of": store.digest, **chosen, "rounding": ROUNDING}}
    return {key: {**description, **note} for key, description in store.sources.items()}


def _write_task(config: SampleConfig, store: EpisodeStore, task: str, out: Path) -> Segment:
    parts = list(_parts(config, store, task))
    table = np.zeros(len(parts), EPISODE_DTYPE)
    rows = np.zeros(sum(len(rows) for _, rows in parts), row_dtype(store.suite[task]))
    end = 0
    for i, (entry, of_episode) in enumerate(parts):
        begin, end = end, end + len(of_episode)
        table[i], rows[begin:end] = entry, of_episode
        table[i]["start"] = begin
    round_where_it_fits(rows, table["start"])
    write_atomically(packed_path(out, task), pack(rows, table))
    digests = (hashlib.sha256(records.tobytes()).hexdigest() for records in (rows, table))
    return Segment(len(table), len(rows), *digests)


def _parts(
    config: SampleConfig, store: EpisodeStore, task: str
) -> Iterator[tuple[np.void, np.ndarray]]:
    """Entries and rows of the chosen episodes and pieces, in the order of the sample."""
    table = store.episodes(task)
    rng = np.random.default_rng([config.seed, store.suite.id(task)])
    whole, others = chosen_episodes(best_first(store, task), config.episodes, config.whole)
    at = rng.permuted((np.arange(len(others)) + rng.random(len(others))) / max(len(others), 1))
    begins = {}
    if config.rows is not None:
        spare = np.maximum(table["length"][others].astype(np.int64) - config.rows, 0)
        begins = dict(zip(others.tolist(), (at * (spare + 1)).astype(int).tolist(), strict=True))
    for episode in _arranged(whole, others, rng).tolist():
        entry = table[episode].copy()
        store.checked_episode(task, episode)
        first, length = int(entry["start"]), int(entry["length"])
        if config.rows is not None and episode in begins and config.rows < length:
            first, length = first + begins[episode], config.rows
            entry["length"], entry["is_piece"] = length, 1
        rows = store.rows(task, first, first + length)
        rows["action"][0] = rows["reward"][0] = np.nan
        yield entry, rows


def chosen_episodes(order: np.ndarray, count: int, whole: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``whole`` best of ``count`` episodes, and others evenly spaced down to the worst.

    ``order`` (episodes,) has the indices of all, the best first; both results are indices too.
    """
    rest = order[whole:]
    places = np.linspace(0, max(len(rest) - 1, 0), min(count - whole, len(rest)))
    return order[:whole], rest[np.round(places).astype(int)]


def _arranged(whole: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All in random order, but so that none of the whole ones is held out if others can be."""
    count = len(whole) + len(others)
    train = episodes_in_split(count, "train")
    places = np.concatenate([np.flatnonzero(~train), rng.permutation(np.flatnonzero(train))])
    arranged = np.empty(count, np.int64)
    arranged[places] = np.concatenate([rng.permutation(others), whole])
    return arranged


def round_where_it_fits(rows: np.ndarray, starts: np.ndarray) -> None:
    """Rounds, in place, columns of observation and action to float16's values, if it does little.

    A column stays as it is if any of its values would move by more than `ROUNDING` of what the
    column changes from one row to the next (root mean square): unbounded angles, and positions far
    from zero that hardly move. Rewards stay as they are.

    Args:
        rows: (rows,) of `pwm.data.episode.row_dtype`.
        starts: (episodes,) the episodes' first rows.
    """
    is_first = np.zeros(len(rows), bool)
    is_first[starts] = True
    for name, known in (("obs", np.ones(len(rows), bool)), ("action", ~is_first)):
        values = rows[name]
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16).astype(np.float32)
        moved = np.abs(rounded - values)[known].max(0, initial=0)
        successive = known[1:] & known[:-1] & ~is_first[1:]
        steps = np.diff(values.astype(np.float64), axis=0)[successive]
        fits = moved <= ROUNDING * np.sqrt(np.square(steps).mean(0)) if len(steps) else moved == 0
        values[:, fits] = rounded[:, fits]
