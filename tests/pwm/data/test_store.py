from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import io
import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from forked import Forked, result_of_fork
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mounted_disk import enter_namespace, mount, require_mounting
from rich.console import Console
from stores import LARGE, SMALL, SUITE, coded_store, make_episode, rewrite_manifest

from pwm.core.errors import PwmError
from pwm.core.suites import SUITES, Suite, Task
from pwm.data.episode import EPISODE_DTYPE, Episode, normalize_actions, row_dtype
from pwm.data.inspection import histogram, info, verify
from pwm.data.manifest import Manifest
from pwm.data.shared_tasks import shared_tasks
from pwm.data.store import EpisodeStore

FIELDS = ("obs", "action", "reward", "terminated", "success")


def assert_same(a: Episode, b: Episode) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.behaviour, a.seed) == (b.behaviour, b.seed)


@pytest.fixture
def store_path(tmp_path):
    """A store with two commits to one task and one to the other."""
    path = tmp_path / "store"
    with EpisodeStore.create(path, SUITE) as store:
        store.add_source("test", {"made_by": "a test"})
        store.append("small", [make_episode(SMALL, 4, 1), make_episode(SMALL, 1, 2)], "test")
        store.append("large", [make_episode(LARGE, 3, 3, "ou")], "test")
        store.append("small", [make_episode(SMALL, 6, 4, "ou")], "test")
    return path


commits = st.lists(
    st.tuples(
        st.sampled_from([SMALL, LARGE]),
        st.lists(st.integers(1, 6), max_size=4),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["random", "ou", "scripted"]),
        st.booleans(),
    ),
    max_size=6,
)


@settings(max_examples=30, deadline=None)
@given(commits)
def test_any_sequence_of_appends_is_read_back(tmp_path_factory, sequence):
    path = tmp_path_factory.mktemp("store")
    expected: dict[str, list[tuple[Episode, str]]] = {"small": [], "large": []}
    store = EpisodeStore.create(path, SUITE)
    for key in ("a", "b"):
        store.add_source(key, {"key": key})
    for number, (task, lengths, source, behaviour, reopen) in enumerate(sequence):
        episodes = [
            make_episode(task, n, 10 * number + i, behaviour) for i, n in enumerate(lengths)
        ]
        store.append(task.name, episodes, source)
        expected[task.name] += [(episode, source) for episode in episodes]
        if reopen:
            store.close()
            store = EpisodeStore.open(path, "a")
    store.close()
    read = EpisodeStore.open(path)
    for task in (SMALL, LARGE):
        wanted = expected[task.name]
        assert read.count(task.name) == len(wanted)
        assert len(read.rows(task.name)) == sum(len(episode.obs) for episode, _ in wanted)
        table = read.episodes(task.name)
        for i, (episode, source) in enumerate(wanted):
            assert_same(read.episode(task.name, i), episode)
            assert list(read.sources)[table[i]["source"]] == source
            assert table[i]["return"] == pytest.approx(episode.reward.sum(dtype=np.float64))
            assert table[i]["success_last"] == episode.success[-1]
            assert table[i]["success_any"] == episode.success.any()
        for key in ("a", "b"):
            assert read.count(task.name, key) == sum(source == key for _, source in wanted)
    assert list(verify(read)) == []


def test_rows_are_unpadded_and_row_0_has_no_action_and_no_reward(store_path):
    store = EpisodeStore.open(store_path)
    rows, table = store.rows("small"), store.episodes("small")
    assert rows["obs"].shape == (14, 3)
    assert rows["action"].shape == (14, 1)
    assert rows.dtype.itemsize == 4 * (3 + 1 + 1 + 1)
    assert (store_path / "small" / "rows.bin").stat().st_size == rows.nbytes
    np.testing.assert_array_equal(table["start"], [0, 5, 7])
    np.testing.assert_array_equal(table["length"], [5, 2, 7])
    first = np.isin(np.arange(14), table["start"])
    np.testing.assert_array_equal(np.isnan(rows["reward"]), first)
    np.testing.assert_array_equal(np.isnan(rows["action"]).all(1), first)
    assert store.rows("small", 5, 7).tobytes() == rows[5:7].tobytes()
    assert not table.flags.writeable, "it is kept"


def test_the_suite_is_rebuilt_from_the_manifest_alone(tmp_path):
    unknown = Task("my.own-task_7", "dmcontrol", 11, 3, 77, action_repeat=5)
    suite = Suite("mine", (unknown, SMALL))
    EpisodeStore.create(tmp_path / "s", suite).close()
    assert EpisodeStore.open(tmp_path / "s").suite == suite
    EpisodeStore.create(tmp_path / "mt80", SUITES["mt80"]).close()
    assert EpisodeStore.open(tmp_path / "mt80").suite == SUITES["mt80"]


def test_readers_open_while_a_writer_appends_and_see_the_commit_of_their_opening(store_path):
    before = EpisodeStore.open(store_path)
    with EpisodeStore.open(store_path, "a") as writer:
        early = before.rows("small").tobytes()
        writer.append("small", [make_episode(SMALL, 9, 5)], "test")
        after = EpisodeStore.open(store_path)
        assert (before.count("small"), after.count("small")) == (3, 4)
        assert len(writer.rows("small")) == len(after.rows("small")) == 24
        assert before.rows("small").tobytes() == early


def test_what_lies_behind_the_commit_is_ignored_and_cut_off_by_the_next_writer(store_path):
    wanted = EpisodeStore.open(store_path).rows("small").tobytes()
    for name in ("rows.bin", "episodes.bin"):
        with open(store_path / "small" / name, "ab") as file:
            file.write(b"half an episode" * 10)
    (store_path / "manifest.json.tmp").write_text("{")
    assert EpisodeStore.open(store_path).rows("small").tobytes() == wanted
    with EpisodeStore.open(store_path, "a") as store:
        store.append("small", [make_episode(SMALL, 2, 8)], "test")
    reread = EpisodeStore.open(store_path)
    assert (store_path / "small" / "rows.bin").stat().st_size == reread.rows("small").nbytes
    assert_same(reread.episode("small", 3), make_episode(SMALL, 2, 8))
    assert list(verify(reread)) == []


def write_without_end(path: Path) -> int:
    with EpisodeStore.open(path, "a") as store:
        index = store.count("small")
        while True:
            episodes = [make_episode(SMALL, 1 + i % 7, i) for i in range(index, index + 3)]
            store.append("small", episodes, "test")
            index += 3
            print(index)


def test_a_writer_killed_at_any_instant_leaves_its_last_commit(tmp_path):
    path = tmp_path / "store"
    with EpisodeStore.create(path, SUITE) as store:
        store.add_source("test", {})
    done = 0
    for attempt in range(8):
        writer = Forked(partial(write_without_end, path), tmp_path / "log")
        writer.wait_until(lambda w=writer, lines=3 + attempt: w.printed.count("\n") >= lines)
        time.sleep(0.0007 * attempt)
        writer.kill()
        assert writer.wait() == -signal.SIGKILL
        told = writer.printed.split("\n")[:-1]  # whole lines
        done = int(told[-1]) if told else done
        store = EpisodeStore.open(path)
        assert store.count("small") in (done, done + 3)
        assert list(verify(store)) == []
        for i in range(store.count("small")):
            assert_same(store.episode("small", i), make_episode(SMALL, 1 + i % 7, i))
    with EpisodeStore.open(path, "a") as again:
        again.append("small", [make_episode(SMALL, 2, 5)], "test")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_commit_that_fails_half_way_changes_nothing(store_path, monkeypatch, failing):
    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with EpisodeStore.open(store_path, "a") as store:
        monkeypatch.setattr(os, failing, fail)
        with pytest.raises(PwmError, match=r"cannot write .*No space left .* free some space"):
            store.append("small", [make_episode(SMALL, 9, 5)], "test")
        monkeypatch.undo()
        assert store.count("small") == EpisodeStore.open(store_path).count("small") == 3
        store.append("small", [make_episode(SMALL, 2, 6)], "test")
    reread = EpisodeStore.open(store_path)
    assert_same(reread.episode("small", 3), make_episode(SMALL, 2, 6))
    assert list(verify(reread)) == []


def fill_a_disk(directory: Path) -> tuple[int, str]:
    """Appends until a disk of 3 MiB is full and checks the store, and again with more room."""
    enter_namespace()
    mount(directory, "3m")
    path, filler = directory / "store", directory / "filler"
    filler.write_bytes(bytes(2**20))
    written, said = 0, ""
    with EpisodeStore.create(path, SUITE) as store:
        store.add_source("test", {})
        try:
            for written in range(10**6):
                store.append("small", [make_episode(SMALL, 500, written)], "test")
        except PwmError as error:
            said = str(error)
    for mode in ("r", "a"):
        with EpisodeStore.open(path, mode) as store:
            assert store.count("small") == written
            assert list(verify(store)) == []
    filler.unlink()
    with EpisodeStore.open(path, "a") as store:
        for index in range(written, written + 20):
            store.append("small", [make_episode(SMALL, 500, index)], "test")
        assert list(verify(store)) == []
        assert all(store.episode("small", i).seed == i for i in range(written + 20))
    return written, said


def test_on_a_full_disk_everything_committed_stays_and_it_goes_on_with_room(tmp_path):
    require_mounting(tmp_path)
    written, said = result_of_fork(fill_a_disk, tmp_path)
    assert written > 10
    assert "cannot write" in said
    assert "No space left on device" in said


def test_a_commit_whose_last_sync_fails_is_not_written_over(store_path, monkeypatch):
    def fail(directory):
        raise OSError("disk is gone")

    with EpisodeStore.open(store_path, "a") as store:
        assert len(store.rows("small")) == 14
        monkeypatch.setattr("pwm.core.files.fsync_directory", fail)
        with pytest.raises(PwmError, match="disk is gone"):
            store.append("small", [make_episode(SMALL, 9, 5)], "test")
        monkeypatch.undo()
        store.append("small", [make_episode(SMALL, 2, 6)], "test")
        assert len(store.rows("small")) == 14 + 10 + 3
    reread = EpisodeStore.open(store_path)
    assert_same(reread.episode("small", 3), make_episode(SMALL, 9, 5))
    assert_same(reread.episode("small", 4), make_episode(SMALL, 2, 6))
    assert list(verify(reread)) == []


def test_data_are_on_disk_before_the_manifest_names_them(store_path, monkeypatch):
    events = []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (events.append(os.readlink(f"/proc/self/fd/{fd}")), real_fsync(fd))
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), real_replace(a, b)))
    with EpisodeStore.open(store_path, "a") as store:
        store.append("small", [make_episode(SMALL, 2)], "test")
    rename = events.index("rename")
    before, after = events[:rename], events[rename + 1 :]
    for name in ("small/rows.bin", "small/episodes.bin", "manifest.json.tmp"):
        assert any(path.endswith(name) for path in before), name
    assert after == [str(store_path.resolve())]


def test_one_writer_at_a_time(store_path):
    with EpisodeStore.open(store_path, "a"):
        with pytest.raises(PwmError, match=f"process {os.getpid()} "):
            EpisodeStore.open(store_path, "a")
        with pytest.raises(PwmError, match="being written"):
            EpisodeStore.create(store_path, SUITE)
    EpisodeStore.open(store_path, "a").close()


BAD_EPISODES = {
    "shape": (lambda e: dataclasses.replace(e, obs=e.obs[:, :2]), "its obs has shape"),
    "length": (lambda e: dataclasses.replace(e, reward=e.reward[1:]), "its reward has shape"),
    "no step": (
        lambda e: Episode(e.obs[:1], *(getattr(e, n)[:0] for n in FIELDS[1:])),
        "no step",
    ),
    "no dimension": (lambda e: dataclasses.replace(e, action=np.float32(0)), "shape"),
    "text": (lambda e: dataclasses.replace(e, reward=np.array(list("abcd"))), "numbers"),
    "nan": (lambda e: dataclasses.replace(e, obs=e.obs * np.nan), "obs holds NaN or infinite"),
    "overflow": (lambda e: dataclasses.replace(e, reward=np.full(4, 1e39)), "NaN or infinite"),
    "action": (lambda e: dataclasses.replace(e, action=e.action + 2), r"must lie in \[-1, 1\]"),
    "behaviour": (lambda e: dataclasses.replace(e, behaviour=""), "behaviour"),
    "seed": (lambda e: dataclasses.replace(e, seed=2**63), "seed"),
}


@pytest.mark.parametrize("kind", BAD_EPISODES)
def test_a_bad_episode_is_refused_whole_with_its_number(store_path, kind):
    spoil, message = BAD_EPISODES[kind]
    with EpisodeStore.open(store_path, "a") as store:
        good = make_episode(SMALL, 4)
        with pytest.raises(PwmError, match=f"episode 1 .*{message}"):
            store.append("small", [good, spoil(good)], "test")
        assert store.count("small") == 3


def test_actions_in_an_environments_units_are_to_be_scaled_not_clipped():
    low, high = (-2.0, 0.0), (2.0, 10.0)
    task = Task("arm", "gymnasium", 3, 2, 20, 1, "Arm-v0", "{}", 0.0, 1.0, low, high)
    episode = make_episode(task, 4)
    torques = np.array([[-2, 0], [2, 10], [1, 5], [-1.5, 2.5]])
    fault = dataclasses.replace(episode, action=torques).fault(task)
    assert "pwm.normalize_actions(action, low, high)" in fault
    assert "which are [-2, 0] and [2, 10]" in fault
    scaled = normalize_actions(torques, low, high)
    assert scaled.dtype == np.float32
    assert scaled.tolist() == [[-1, -1], [1, 1], [0.5, 0], [-0.75, -0.5]]
    assert dataclasses.replace(episode, action=scaled).fault(task) is None
    assert normalize_actions([0.0, 4.0], 0, 4).tolist() == [-1, 1]
    with pytest.raises(PwmError, match=r"reach 1\.5 times the half-range .*np\.clip"):
        normalize_actions([[3.0, 5.0]], low, high)
    with pytest.raises(PwmError, match="both finite"):
        normalize_actions([[0.0]], [-np.inf], [np.inf])
    with pytest.raises(PwmError, match="2 lowest and 2 highest values for 3"):
        normalize_actions(np.zeros((4, 3)), low, high)


def test_data_of_other_action_bounds_are_no_data_of_a_task(tmp_path):
    task = Task("arm", "gymnasium", 3, 1, 20, 1, "Arm-v0", "{}", 0.0, 1.0, (-2.0,), (2.0,))
    with EpisodeStore.create(tmp_path / "data", Suite("own", (task,))) as store:
        pass
    unknown = dataclasses.replace(task, action_low=None, action_high=None)
    assert shared_tasks(store, Suite("own", (unknown,))) == (task,)
    with pytest.raises(PwmError, match=r"recorded with \[-1\] to \[2\]"):
        shared_tasks(store, Suite("own", (dataclasses.replace(task, action_low=(-1.0,)),)))


def test_misuse_is_refused(store_path, tmp_path):
    with pytest.raises(PwmError, match="mode 'w' is unknown"):
        EpisodeStore.open(store_path, "w")
    reader = EpisodeStore.open(store_path)
    with pytest.raises(PwmError, match="not open for appending"):
        reader.append("small", [make_episode(SMALL, 4)], "test")
    with pytest.raises(PwmError, match="is not in suite 'pair'"):
        reader.rows("smal")
    with pytest.raises(PwmError, match=r"episode 3 of task .* is not one of its 3"):
        reader.episode("small", 3)
    with EpisodeStore.open(store_path, "a") as store:
        with pytest.raises(PwmError, match="no source 'other'"):
            store.append("small", [make_episode(SMALL, 4)], "other")
        store.add_source("test", {"made_by": "a test"})
        with pytest.raises(PwmError, match="described otherwise"):
            store.add_source("test", {"made_by": "somebody else"})
        with pytest.raises(PwmError, match="cannot be stored"):
            store.add_source("new", {"array": np.zeros(2)})
    with pytest.raises(PwmError, match="not open for appending"):
        store.append("small", [make_episode(SMALL, 4)], "test")
    with pytest.raises(PwmError, match="not empty"):
        EpisodeStore.create(store_path, SUITE)
    (tmp_path / "file").write_text("")
    with pytest.raises(PwmError, match=r"cannot write .*File exists"):
        EpisodeStore.create(tmp_path / "file" / "store", SUITE)
    for name in ("../out", "a/b", ".hidden", "manifest.json", ""):
        with pytest.raises(PwmError, match="not a plain file name"):
            EpisodeStore.create(tmp_path / "bad", Suite("x", (Task(name, "metaworld", 3, 1, 9),)))
    assert not (tmp_path / "bad").exists()


def test_actions_at_the_bound_are_taken_as_they_are(tmp_path):
    with EpisodeStore.create(tmp_path, SUITE) as store:
        store.add_source("test", {})
        episode = make_episode(SMALL, 2)
        episode.action[:] = [[1.0], [np.nextafter(np.float32(-1), np.float32(-2))]]
        store.append("small", [episode], "test")
        np.testing.assert_array_equal(store.episode("small", 0).action, episode.action)


def test_opening_says_what_is_wrong(store_path, tmp_path):
    for path in (tmp_path / "none", tmp_path):
        for mode in ("r", "a"):
            with pytest.raises(PwmError, match=r"is no episode store"):
                EpisodeStore.open(path, mode)
    assert not (tmp_path / ".lock").exists()
    rewrite_manifest(store_path, lambda document: document.update(version=2))
    with pytest.raises(PwmError, match=r"format version 2 .* reads version 1"):
        EpisodeStore.open(store_path)


@pytest.mark.parametrize("name", ["rows.bin", "episodes.bin"])
def test_a_truncated_data_file_is_refused(store_path, name):
    path = store_path / "large" / name
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 1)
    for mode in ("r", "a"):
        with pytest.raises(PwmError, match=f"large/{name}: task large: the file is truncated"):
            EpisodeStore.open(store_path, mode)
    path.unlink()
    with pytest.raises(PwmError, match=r"the file cannot be opened \(No such file"):
        EpisodeStore.open(store_path)


def set_task(key, value):
    return lambda document: document["tasks"][0].update({key: value})


FORGERIES = {
    "path up": set_task("name", "../small"),
    "absolute path": set_task("name", "/tmp/small"),
    "dot": set_task("name", "."),
    "not a name": set_task("name", 7),
    "twice": set_task("name", "large"),
    "domain": set_task("domain", "atari"),
    "size": set_task("obs_dim", 0),
    "huge": set_task("obs_dim", 2**40),
    "bool": set_task("action_dim", True),
    "unknown entry": set_task("colour", "red"),
    "counts": set_task("episodes", 4),
    "negative": set_task("rows", -1),
    "segment": lambda d: d["tasks"][0]["segments"][0].update(episodes=3),
    "sum": lambda d: d["tasks"][0]["segments"][0].update(rows_sha256="zz"),
    "no segments": lambda d: d["tasks"][0].pop("segments"),
    "no tasks": lambda d: d.update(tasks=[]),
    "tasks": lambda d: d.update(tasks={"a": 1}),
    "sources": lambda d: d.update(sources=[{"key": "a"}]),
    "behaviour": lambda d: d.update(behaviours=["a\x1b[31m"]),
    "fewer behaviours": lambda d: d.update(behaviours=["random"]),
    "fewer sources": lambda d: d.update(sources=[]),
    "format": lambda d: d.update(format="other"),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forged_manifest_is_refused(store_path, kind):
    rewrite_manifest(store_path, FORGERIES[kind])
    with pytest.raises(PwmError):
        EpisodeStore.open(store_path).episodes("small")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_mutated_manifest_is_refused_or_read_right(store_path, data):
    original = (store_path / "manifest.json").read_bytes()
    mutated = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(mutated) - 1))
        kind = data.draw(st.sampled_from(["set", "delete", "insert", "cut"]))
        if kind == "cut":
            mutated = mutated[: position + 1]
        elif kind == "delete":
            mutated = mutated[:position] + mutated[position + 1 :] or bytearray(b"0")
        else:
            end = position + (kind == "set")
            mutated[position:end] = bytes([data.draw(st.integers(0, 255))])
    wanted = Manifest.read(store_path)
    try:
        (store_path / "manifest.json").write_bytes(mutated)
        try:
            found = Manifest.read(store_path)
        except PwmError:
            return
        assert found == wanted
    finally:
        (store_path / "manifest.json").write_bytes(original)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_verify_finds_any_changed_byte_and_names_its_place(store_path, data):
    task = data.draw(st.sampled_from(["small", "large"]))
    name = data.draw(st.sampled_from(["rows.bin", "episodes.bin"]))
    path = store_path / task / name
    original = path.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[position] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(changed)
        problems = list(verify(EpisodeStore.open(store_path)))
        with contextlib.suppress(PwmError):
            EpisodeStore.open(store_path).episodes(task)
    finally:
        path.write_bytes(original)
    assert any(p.file == str(path) and p.task == task for p in problems)


@pytest.mark.parametrize(
    ("field", "row", "value", "fault", "file"),
    [
        ("obs", 2, np.nan, "observation", "rows.bin"),
        ("action", 2, np.inf, "NaN or infinite action", "rows.bin"),
        ("action", 2, 1.5, "outside", "rows.bin"),
        ("reward", 0, 0.0, "row 0", "rows.bin"),
        ("success", 2, 7, "neither 0 nor 1", "rows.bin"),
        ("reward", 2, 50.0, "return differs", "episodes.bin"),
    ],
)
def test_verify_checks_values_even_where_checksums_fit(store_path, field, row, value, fault, file):
    rows = np.fromfile(store_path / "small" / "rows.bin", row_dtype(SMALL))
    rows[field][7 + row] = value  # episode 2 starts at row 7, in the second segment
    rows.tofile(store_path / "small" / "rows.bin")
    digest = hashlib.sha256(rows[7:].tobytes()).hexdigest()
    rewrite_manifest(store_path, lambda d: d["tasks"][0]["segments"][1].update(rows_sha256=digest))
    problems = list(verify(EpisodeStore.open(store_path)))
    assert [(p.task, p.episode, p.file) for p in problems if fault in p.fault] == [
        ("small", 2, str(store_path / "small" / file))
    ]
    assert "small" in str(problems[0])
    assert "episode 2" in str(problems[0])


def test_info_shows_each_task(store_path):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(info(EpisodeStore.open(store_path)))
    text = console.export_text()
    line = next(line for line in text.splitlines() if line.startswith(" small"))
    assert line.split()[1:3] == ["3", "14"]
    assert "67% random" in line
    assert "test (4 episodes)" in text
    large = next(line for line in text.splitlines() if line.startswith(" large"))
    assert "%" in large.split("ou")[0], "Meta-World's tasks show a success rate"


def test_info_of_an_empty_store(tmp_path):
    EpisodeStore.create(tmp_path, SUITE).close()
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(info(EpisodeStore.open(tmp_path)))
    assert "sources: none" in console.export_text()


def test_histogram():
    assert histogram(np.array([0.0] * 8 + [1.0] * 4)) == "█      ▄"
    assert len(histogram(np.array([3.0]))) == 8


def test_a_store_of_half_a_million_episodes_opens_at_once(tmp_path):
    path = coded_store(tmp_path / "store", {"small": [1]}).path
    count = 500_000
    table = np.zeros(count, EPISODE_DTYPE)
    table["length"] = 2
    table["start"] = 2 * np.arange(count)
    table.tofile(path / "small" / "episodes.bin")
    rows_bytes = 2 * count * row_dtype(SMALL).itemsize
    os.truncate(path / "small" / "rows.bin", rows_bytes)

    def change(document):
        segment = {**document["tasks"][0]["segments"][0], "episodes": 100, "rows": 200}
        document["tasks"][0].update(episodes=count, rows=2 * count, segments=[segment] * 5000)

    rewrite_manifest(path, change)
    seconds = []
    for _ in range(3):  # other processes may hold one of them up
        began = time.perf_counter()
        store = EpisodeStore.open(path)
        assert store.episodes("small")["start"][-1] == 2 * count - 2
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.5


def test_shared_tasks(store_path):
    store = EpisodeStore.open(store_path)
    superset = Suite("big", (Task("other", "metaworld", 9, 4, 5), LARGE, SMALL))
    assert shared_tasks(store, superset) == (LARGE, SMALL)
    assert shared_tasks(store, superset, ["small"]) == (SMALL,)
    with pytest.raises(PwmError, match="no task of suite"):
        shared_tasks(store, SUITES["quick"])
    with pytest.raises(PwmError, match=r"3 observation .* but 4"):
        shared_tasks(store, Suite("x", (dataclasses.replace(SMALL, obs_dim=4),)))


def test_nothing_is_written_through_a_link_out_of_the_store(tmp_path):
    path, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "rows.bin").write_text("precious")
    with EpisodeStore.create(path, SUITE) as store:
        store.add_source("test", {})
        (path / "small").symlink_to(elsewhere)
        with pytest.raises(PwmError, match="link out of the store"):
            store.append("small", [make_episode(SMALL, 4)], "test")
        (path / "large").mkdir()
        (path / "large" / "rows.bin").symlink_to(elsewhere / "rows.bin")
        with pytest.raises(PwmError, match="cannot write"):
            store.append("large", [make_episode(LARGE, 4)], "test")
    assert (elsewhere / "rows.bin").read_text() == "precious"


def test_a_store_may_be_moved(store_path, tmp_path):
    shutil.move(store_path, tmp_path / "moved")
    assert list(verify(EpisodeStore.open(tmp_path / "moved"))) == []


def test_columns_are_taken_as_rows_of_numbers():
    column = np.ones((3, 1), np.float32)
    episode = Episode(np.zeros((4, 2)), column[:, 0], column, column > 2, column > 0)
    assert episode.fault(Task("t", "gymnasium", 2, 1, 9, 1, "T-v0")) is None
    assert episode.action.shape == (3, 1)
    assert episode.reward.shape == episode.success.shape == episode.terminated.shape == (3,)


@pytest.mark.parametrize(
    ("terminated", "success", "match"),
    [
        ([0, 1, 0], None, "terminated at step 1 and goes on"),
        ([0, 0, 1], [0, 0, np.nan], "other values than True and False"),
        ([0, 0, 1], [0, 0.3, 1], "other values than True and False"),
        ([0, 0, 1], [0, 1, 1], None),
    ],
)
def test_flags_that_cannot_be_are_refused(terminated, success, match):
    given = None if success is None else np.array(success)
    episode = Episode(
        np.zeros((4, 2)), np.zeros((3, 1)), np.zeros(3), np.array(terminated, bool), given
    )
    fault = episode.fault(Task("t", "gymnasium", 2, 1, 9, 1, "T-v0"))
    assert (fault is None) if match is None else (match in fault)


@pytest.mark.parametrize(
    ("start", "step", "lost"),
    [(1.7e9, 0.1, [1]), (52.52, 4e-6, [1]), (4.5e6, 100, []), (1.0, 1e-9, []), (7.0, 0, [])],
)
def test_variation_that_float32_rounds_away_is_told(tmp_path, start, step, lost):
    obs = np.stack([np.linspace(0, 1, 31), start + step * np.arange(31)], 1)
    episode = Episode(obs, np.zeros((30, 1)), np.zeros(30), np.zeros(30, bool))
    assert episode.lost_entries() == lost
    task = Task("t", "gymnasium", 2, 1, 30, 1, "T-v0", score_min=0.0, score_max=1.0)
    with EpisodeStore.create(tmp_path, Suite("t", (task,))) as store:
        store.add_source("test", {})
        with pytest.warns(UserWarning, match="entry 1") if lost else contextlib.nullcontext():
            store.append("t", [episode], "test")
