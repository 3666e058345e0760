"""Damaged and edited episode stores: each is read correctly or refused with one sentence.

Stores are damaged before they are opened, as training opens them, and while windows are read from
their files. `scripts/reliability/mutations.py` runs this and prints what came of it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from damage import damage_bytes, damage_text, places, same
from judging import Tally, judged
from samples import random_episode

from pwm.core.suites import Suite, Task
from pwm.data.inspection import open_checked
from pwm.data.manifest import checksum
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import WindowSampler

_SUITE = Suite("pair", (Task("small", "dmcontrol", 3, 1, 20), Task("large", "metaworld", 5, 2, 20)))
_DATA = [f"{task.name}/{name}" for task in _SUITE for name in ("rows.bin", "episodes.bin")]

Content = dict[str, bytes]


def run(directory: Path, count: int, seed: int) -> Tally:
    """Damage and read ``count`` copies of a small store.

    Args:
        directory: an empty directory for the stores.
        count: how many.
        seed: of the damage.
    """
    genuine, copy, outside = (directory / name for name in ("genuine", "copy", "outside"))
    _make(genuine, seed)
    shutil.copytree(genuine, outside)
    wanted, batches = _content(genuine), _batches(_sampler(genuine))
    tally, random = Tally(), Random(f"store {seed}")
    while tally.tried < count:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(genuine, copy)
        while_read = random.random() < 0.25
        name, harm = random.choice(_WHILE_READ if while_read else _BEFORE)
        if while_read:
            sampler = _sampler(copy)
            _batches(sampler)
            harm(copy, random)
            outcome = judged(lambda: _batches(sampler), within(batches))  # noqa: B023
        else:
            harm(copy, random)
            if not copy.is_symlink() and same(genuine, copy):
                continue
            outcome = judged(lambda: _content(copy), within(wanted))
        tally.add(f"store, {name}", outcome)
    return tally


def within(wanted: Content) -> Callable[[Content], bool]:
    """Whether what was read is some of what was written: a manifest may name fewer tasks."""
    return lambda found: all(wanted.get(name) == data for name, data in found.items())


def _make(path: Path, seed: int) -> None:
    """A store of three commits per task."""
    with EpisodeStore.create(path, _SUITE) as store:
        store.add_source("random", {"made_by": "a generator", "seed": seed})
        for commit in range(3):
            for task in _SUITE:
                episodes = [random_episode(task, [seed, commit, i], 20) for i in range(8)]
                store.append(task.name, episodes, "random")
    for file in path.rglob("*.bin"):
        os.utime(file, ns=(0, 0))  # long ago, as stores are that training reads


def _content(path: Path) -> Content:
    """Every byte of every task, by way of the checks that training makes at its door."""
    store = open_checked(path, BadData())
    return {
        task.name: store.episodes(task.name).tobytes() + store.rows(task.name).tobytes()
        for task in store.suite
    }


def _sampler(path: Path) -> WindowSampler:
    return WindowSampler(EpisodeStore.open(path), 4, 64, 0, memory=0)


def _batches(sampler: WindowSampler) -> Content:
    batches = list(sampler.iterate(0, 4))
    return {
        str(step): b"".join(part.numpy().tobytes() for part in batch if part is not None)
        for step, batch in enumerate(batches)
    }


# Before the store is opened


def _damage_data(path: Path, random: Random) -> None:
    file = path / random.choice(_DATA)
    file.write_bytes(damage_bytes(file.read_bytes(), random))


def _damage_manifest(path: Path, random: Random) -> None:
    file = path / "manifest.json"
    file.write_bytes(damage_text(file.read_bytes(), random))


def _edit_manifest(path: Path, random: Random) -> None:
    """An edit that keeps the manifest's own checksum right, as a forger's does."""
    file = path / "manifest.json"
    document = json.loads(file.read_bytes())
    del document["checksum"]
    if random.random() < 0.3:
        random.choice(document["tasks"])["name"] = random.choice(_OUTSIDE)
    else:
        holder, key = random.choice(places(document))
        holder[key] = random.choice(_ODD)
    file.write_text(json.dumps({**document, "checksum": _forged_checksum(document)}))


_ODD: tuple[Any, ...] = (0, -1, 1, 24, 2**31, 2**63, 0.5, None, True, "", "x" * 30_000, [], {})
_OUTSIDE = ("../outside/small", "/etc", "..", ".", "small/../large", "large", "small\0", "~", "")


def _forged_checksum(document: Any) -> str:
    try:
        return checksum(document)
    except ValueError:  # of a number that JSON does not have
        return "0" * 64


def _swap(path: Path, random: Random) -> None:
    """Exchanges two files, or puts one in another's place."""
    one, other = (path / name for name in random.sample([*_DATA, "manifest.json"], 2))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    if random.random() < 0.5:
        other.write_bytes(first)


def _replace(path: Path, random: Random) -> None:
    """Something else than a file: nothing, a directory, a pipe, a link out of the store."""
    file = path / random.choice([*_DATA, "manifest.json"])
    kept = file.read_bytes()
    file.unlink()
    kind = random.randrange(5)
    if kind == 1:
        file.mkdir()
    elif kind == 2:
        os.mkfifo(file)
    elif kind == 3:
        file.symlink_to(file.name)  # a link to itself
    elif kind == 4:
        outside = path.parent / "outside" / f"linked-{file.name}"
        outside.write_bytes(kept)
        file.symlink_to(outside)


def _replace_task(path: Path, random: Random) -> None:
    """A task's directory gone, doubled, or a link to another store's."""
    task = path / random.choice(_SUITE.names)
    kind = random.randrange(3)
    if kind == 0:
        shutil.copytree(task, path / "another")
        return
    shutil.rmtree(task)
    if kind == 1:
        task.symlink_to(path.parent / "outside" / task.name)


# While windows are read


def _truncate(path: Path, random: Random) -> None:
    file = path / random.choice(_DATA)
    os.truncate(file, random.randrange(file.stat().st_size))


def _truncate_and_restore_size(path: Path, random: Random) -> None:
    file = path / random.choice(_DATA)
    size = file.stat().st_size
    os.truncate(file, random.randrange(size))
    os.truncate(file, size)


def _overwrite(path: Path, random: Random) -> None:
    file = path / random.choice(_DATA)
    with open(file, "r+b") as opened:
        opened.seek(random.randrange(file.stat().st_size))
        opened.write(random.randbytes(random.choice((1, 8, 100))))


def _append(path: Path, random: Random) -> None:
    with open(path / random.choice(_DATA), "ab") as opened:
        opened.write(random.randbytes(random.choice((1, 100, 5000))))


_BEFORE = [
    ("bytes of data", _damage_data),
    ("bytes of data", _damage_data),
    ("bytes of the manifest", _damage_manifest),
    ("manifest edited with its checksum", _edit_manifest),
    ("files swapped", _swap),
    ("file replaced", _replace),
    ("task replaced", _replace_task),
]
_WHILE_READ = [
    ("truncated while read", _truncate),
    ("truncated and extended while read", _truncate_and_restore_size),
    ("overwritten while read", _overwrite),
    ("appended to while read", _append),
    ("swapped while read", _swap),
    ("replaced while read", _replace),
    ("task replaced while read", _replace_task),
]
