"""Data problems are found before they do harm: one sentence, or skipped and counted."""

from __future__ import annotations

import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Forked
from stores import SMALL, SUITE, coded_store, make_episode, rewrite_manifest

from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.data.episode import row_dtype
from pwm.data.inspection import open_checked
from pwm.data.problems import BadData, DataError, Problem
from pwm.data.start_states import StatePool
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import Batch, WindowSampler
from pwm.pretraining.normalization import observation_moments

LENGTHS = {"small": [9] * 30, "large": [12] * 30}


@pytest.fixture
def path(tmp_path):
    return coded_store(tmp_path / "store", LENGTHS).path


def spoil(path, task: Task, episode: int, field: str, row: int, value: float) -> None:
    """Writes a value into a row of an episode, as a broken recorder would."""
    file = path / task.name / "rows.bin"
    rows = np.fromfile(file, row_dtype(task))
    start = int(EpisodeStore.open(path).episodes(task.name)["start"][episode])
    rows[field][start + row] = value
    rows.tofile(file)


VALUES = {
    "NaN observation": ("obs", 4, np.nan),
    "infinite observation": ("obs", 0, np.inf),
    "huge": ("obs", 2, 3e38),
    "NaN action": ("action", 3, np.nan),
    "action out of range": ("action", 5, -1.5),
    "infinite reward": ("reward", 5, -np.inf),
}


@pytest.fixture(params=[0, 2**30], ids=["in files", "in memory"])
def memory(request) -> int:
    """Where the rows live while windows are drawn."""
    return request.param


def tensors(batch: Batch) -> list[torch.Tensor]:
    return [part for part in batch if part is not None]


def assert_same(one: Batch, other: Batch) -> None:
    assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


@pytest.mark.parametrize("kind", VALUES)
def test_a_batch_with_a_bad_value_names_file_task_and_episode(path, memory, kind):
    field, row, value = VALUES[kind]
    spoil(path, SMALL, 7, field, row, value)
    sampler = WindowSampler(EpisodeStore.open(path), 9, 256, 0, memory=memory)
    if kind == "huge":
        assert sampler.batch(0).obs.isfinite().all(), "finite, though its square is not"
        return
    with pytest.raises(DataError, match=r"small/rows\.bin: task small, episode 7: a value") as info:
        sampler.batch(0)
    assert info.value.problem.episode == 7
    assert "on_error=skip" in str(info.value)
    with pytest.raises(DataError, match="episode 7"):
        list(sampler.iterate(0, 3))


@pytest.mark.parametrize("kind", sorted(set(VALUES) - {"huge"}))
def test_bad_windows_are_replaced_and_counted(path, memory, kind):
    field, row, value = VALUES[kind]
    spoil(path, SMALL, 7, field, row, value)
    bad = BadData("skip")
    sampler = WindowSampler(EpisodeStore.open(path), 2, 256, 0, memory=memory, bad=bad)
    batches = [sampler.batch(step) for step in range(5)]
    for batch in batches:
        assert (batch.task.bincount() == 128).all(), "by windows of the same task"
        assert all(tensor.isfinite().all() for tensor in tensors(batch))
        assert batch.action.abs().max() <= 1
    assert [(p.task, p.episode) for p in bad.problems] == [("small", 7)]
    assert bad.windows > 0
    assert "1 data problem(s)" in bad.summary()
    other = 2**30 - memory
    again = WindowSampler(EpisodeStore.open(path), 2, 256, 0, memory=other, bad=BadData("skip"))
    # What replaces them depends on seed and step alone, not on where the rows live.
    assert_same(again.batch(4), batches[4])


def test_windows_beside_the_bad_value_are_kept(path, memory):
    """Only windows that hold the value are bad: of steps 1..9, those with step 5."""
    spoil(path, SMALL, 7, "reward", 5, np.nan)
    sampler = WindowSampler(EpisodeStore.open(path), 2, 4000, 0, memory=memory, bad=BadData("skip"))
    batch = sampler.batch(0)
    first = batch.obs[0, (batch.obs[0, :, 1] == 7) & (batch.task == 0), 0]
    assert sorted(first.unique().tolist()) == [0, 1, 2, 5, 6, 7]


HARMS = {
    "truncate": lambda file: os.truncate(file, file.stat().st_size - 5000),
    "empty": lambda file: os.truncate(file, 0),
    "overwrite": lambda file: file.open("r+b").write(b"other bytes"),
    "swap in place": lambda file: file.write_bytes(os.urandom(file.stat().st_size)),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_file_that_is_harmed_while_it_is_read(path, harm):
    """Windows of the harmed file are never trusted again, those of other tasks are."""
    stops, skips = (
        WindowSampler(EpisodeStore.open(path), 4, 64, 0, memory=0, bad=BadData(on_error))
        for on_error in ("stop", "skip")
    )
    for sampler in (stops, skips):
        sampler.batch(0)
    time.sleep(0.02)
    HARMS[harm](path / "small" / "rows.bin")
    with pytest.raises(DataError, match=r"small/rows\.bin: task small: the file (is trunc|was ch)"):
        stops.batch(1)
    batch = skips.batch(1)
    assert (batch.task == 1).all(), "only the other task has good windows"
    assert skips.bad.problems[0].episode is None


@pytest.mark.parametrize("harm", HARMS)
def test_rows_in_memory_stay_what_they_were(path, harm):
    sampler = WindowSampler(EpisodeStore.open(path), 4, 64, 0)
    before = sampler.batch(0)
    HARMS[harm](path / "small" / "rows.bin")
    assert_same(sampler.batch(0), before)


@pytest.mark.parametrize("harm", HARMS)
def test_a_file_that_is_harmed_before_it_is_in_memory(path, harm):
    store = EpisodeStore.open(path)
    store.episodes("small")
    time.sleep(0.02)
    HARMS[harm](path / "small" / "rows.bin")
    with pytest.raises(DataError, match=r"small/rows\.bin: task small: the file (is trunc|was ch)"):
        WindowSampler(store, 4, 64, 0)
    sampler = WindowSampler(store, 4, 64, 0, bad=BadData("skip"))
    assert (sampler.batch(1).task == 1).all()


def test_a_deleted_or_replaced_file_is_read_on_as_it_was(path):
    sampler = WindowSampler(EpisodeStore.open(path), 4, 64, 0, memory=0)
    before = sampler.batch(0)
    (path / "small" / "rows.bin").unlink()
    shutil.copy(path / "large" / "rows.bin", path / "small" / "rows.bin")
    assert_same(sampler.batch(0), before)


def read_without_end(path: Path) -> int:
    sampler = WindowSampler(EpisodeStore.open(path), 8, 512, 0, memory=0)
    print("reading")
    try:
        for _ in sampler.iterate(0, 10**9):
            pass
    except PwmError as error:
        sys.exit(str(error))
    return 0


def test_truncation_at_any_moment_ends_in_a_sentence(tmp_path):
    """A touched page of a truncated mapping would kill the process by SIGBUS."""
    path = coded_store(tmp_path / "store", {"small": [400] * 200}, get_one()).path
    for attempt in range(4):
        copy = shutil.copytree(path, tmp_path / f"copy{attempt}")
        reader = Forked(partial(read_without_end, copy), tmp_path / "log")
        reader.wait_until(lambda reader=reader: "reading" in reader.printed)
        time.sleep(0.01 + 0.013 * attempt)
        os.truncate(copy / "small" / "rows.bin", 4096 * (1 + attempt))
        code = reader.wait()
        assert code == 1, (code, reader.printed)
        assert "truncated" in reader.printed or "changed" in reader.printed
        assert "Traceback" not in reader.printed


def get_one():
    return type(SUITE)("one", (SMALL,))


def test_opening_checks_a_small_store_in_full(path):
    raw = bytearray((path / "small" / "rows.bin").read_bytes())
    raw[500] ^= 1
    (path / "small" / "rows.bin").write_bytes(raw)
    with pytest.raises(DataError, match="task small, episodes 0 to 29: the bytes differ"):
        open_checked(path, BadData())
    bad = BadData("skip")
    store = open_checked(path, bad)
    assert bad.episodes("small") == list(range(30))
    sampler = WindowSampler(store, 4, 64, 0, bad=bad)
    assert (sampler.batch(0).task == 1).all(), "no episode of a damaged commit is drawn"


def test_opening_checks_some_episodes_of_a_large_store(path, monkeypatch):
    monkeypatch.setattr("pwm.data.inspection._WHOLE_BYTES", 1000)
    spoil(path, SMALL, 0, "obs", 3, np.nan)
    with pytest.raises(DataError, match="task small, episode 0: NaN or infinite observation"):
        open_checked(path, BadData())
    spoil(path, SMALL, 0, "obs", 3, 3.0)
    open_checked(path, BadData())


@pytest.mark.parametrize("name", ["rows.bin", "episodes.bin"])
@pytest.mark.parametrize("harm", ["truncated", "missing", "link", "directory"])
def test_a_task_with_a_useless_file_is_left_out(path, tmp_path, name, harm):
    file = path / "small" / name
    if harm == "truncated":
        os.truncate(file, 10)
    else:
        shutil.move(file, tmp_path / name)
        if harm == "link":
            file.symlink_to(tmp_path / name)
        elif harm == "directory":
            file.mkdir()
    for mode in ("r", "a"):
        with pytest.raises(DataError, match=f"small/{name}: task small: "):
            EpisodeStore.open(path, mode)
    bad = BadData("skip")
    store = open_checked(path, bad)
    assert store.count("small") == 0
    assert store.count("large") == 30
    assert [p.task for p in bad.problems] == ["small"]
    assert (WindowSampler(store, 4, 64, 0, bad=bad).batch(0).task == 1).all()


def test_a_damaged_episode_table_is_left_out(path):
    table = np.fromfile(path / "small" / "episodes.bin", "<u4")
    table[6] = 10**6  # the length of episode 0
    table.tofile(path / "small" / "episodes.bin")
    bad = BadData("skip")
    store = open_checked(path, bad)
    assert store.count("small") == 0
    assert any("does not start where" in p.fault for p in bad.problems)


def test_a_task_without_a_window_is_left_out(tmp_path):
    path = coded_store(tmp_path / "store", {"small": [3] * 30, "large": [12] * 30}).path
    bad = BadData("skip")
    sampler = WindowSampler(EpisodeStore.open(path), 6, 64, 0, bad=bad)
    assert (sampler.batch(0).task == 1).all()
    assert "no episode of 7 rows or more" in bad.summary()
    with pytest.raises(PwmError, match="no task has a window of 31 rows"):
        WindowSampler(EpisodeStore.open(path), 30, 64, 0, bad=BadData("skip"))


def test_episodes_shorter_than_the_horizon_are_left_out_and_told(toy, tmp_path, capfd):
    data = shutil.copytree(toy.data, tmp_path / "data")
    with EpisodeStore.open(data, "a") as store:
        task = store.suite[toy.tasks[1]]
        store.append(task.name, [make_episode(task, 3), make_episode(task, 2)], "toy")
    words = toy.pretrain(tmp_path / "out", "horizon.lengths=[2,4]", "steps=2")
    words[words.index(f"data={toy.data}")] = f"data={data}"
    assert main(words) == 0
    said = " ".join(capfd.readouterr().err.split())
    assert (
        f"task {toy.tasks[1]}: 2 of 26 episodes (the first: 24) have fewer than the 5 rows" in said
    )
    assert f"task {toy.tasks[0]}:" not in said


def test_nothing_but_bad_data_is_an_error(path):
    sampler = WindowSampler(EpisodeStore.open(path), 4, 64, 0, memory=0, bad=BadData("skip"))
    for file in path.glob("*/rows.bin"):
        os.truncate(file, 0)
    with pytest.raises(PwmError, match="100 times in a row"):
        sampler.batch(0)


def test_moments_and_pools_leave_bad_episodes_out(path):
    spoil(path, SMALL, 7, "obs", 4, np.nan)
    store = EpisodeStore.open(path)
    with pytest.raises(DataError, match="task small, episode 7: NaN or infinite observation"):
        observation_moments(store)
    with pytest.raises(DataError, match="task small, episode 7: its obs holds NaN"):
        StatePool.draw(store, "small", 1000, 0)
    bad = BadData("skip")
    assert all(np.isfinite(moments).all() for moments in observation_moments(store, bad=bad))
    pool = StatePool.draw(store, "small", 1000, 0, bad=bad)
    assert 7 not in pool.obs[:, 1].tolist()
    assert len(pool) == 9 * 28, "all rows of the other train episodes"
    assert {p.episode for p in bad.problems} == {7}


def test_a_pool_of_bad_episodes_alone_is_an_error(tmp_path):
    path = coded_store(tmp_path / "store", {"small": [5]}).path
    spoil(path, SMALL, 0, "obs", 4, np.nan)
    with pytest.raises(PwmError, match=r"can be used: 1 data problem\(s\) skipped"):
        StatePool.draw(EpisodeStore.open(path), "small", 5, 0, bad=BadData("skip"))


def test_unknown_on_error():
    with pytest.raises(PwmError, match="unknown on_error 'ignore'; it is stop or skip"):
        BadData("ignore")


def test_what_is_noted_twice_counts_once():
    bad = BadData("skip")
    said: list[str] = []
    bad.report(said.append)
    assert not said
    for _ in range(3):
        bad.note(Problem("f", "small", 3, "broken"), windows=2)
    bad.note(Problem("f", "small", 5, "broken", last=7))
    assert bad.windows == 6
    assert bad.episodes("small") == [3, 5, 6, 7]
    bad.report(said.append)
    assert "2 data problem(s)" in said[0]
    assert "f: task small, episode 3: broken" in said[0]


def spoil_toy(toy, path) -> None:
    """A copy of the toy data whose checksums fit an episode with a NaN."""
    import hashlib

    shutil.copytree(toy.data, path)
    suite = EpisodeStore.open(path).suite
    spoil(path, suite[toy.tasks[0]], 3, "obs", 4, np.nan)
    digest = hashlib.sha256((path / toy.tasks[0] / "rows.bin").read_bytes()).hexdigest()
    position = suite.names.index(toy.tasks[0])
    rewrite_manifest(path, lambda d: d["tasks"][position]["segments"][0].update(rows_sha256=digest))


def test_pretrain_and_extract_stop_or_skip(toy, toy_world_model, tmp_path, capfd):
    data = tmp_path / "data"
    spoil_toy(toy, data)
    for words in (
        toy.pretrain(tmp_path / "stopped"),
        toy.extract(toy_world_model, tmp_path / "stopped"),
    ):
        out = words.index(f"data={toy.data}")
        words[out] = f"data={data}"
        assert main(words) == 1
        error = capfd.readouterr().err
        assert f"{toy.tasks[0]}/rows.bin: task {toy.tasks[0]}, episode 3: NaN" in error
        assert "Traceback" not in error
        assert not (tmp_path / "stopped").exists(), "nothing is written"
        words[words.index(f"out={tmp_path / 'stopped'}")] = f"out={tmp_path / words[0]}"
        assert main([*words, "on_error=skip"]) == 0
        assert "1 data problem(s) skipped" in " ".join(capfd.readouterr().err.split())


def test_extract_leaves_out_a_task_without_data(toy, toy_world_model, tmp_path, capfd):
    data = shutil.copytree(toy.data, tmp_path / "data")
    (data / toy.tasks[1] / "rows.bin").unlink()
    words = toy.extract(toy_world_model, tmp_path / "out", "on_error=skip")
    words[words.index(f"data={toy.data}")] = f"data={data}"
    assert main(words) == 0
    assert (tmp_path / "out" / toy.tasks[0]).is_dir()
    assert not (tmp_path / "out" / toy.tasks[1]).exists()
    assert "cannot be opened" in " ".join(capfd.readouterr().err.split())


def test_verify_goes_on_past_a_missing_file(toy, tmp_path, capfd):
    data = shutil.copytree(toy.data, tmp_path / "data")
    (data / toy.tasks[0] / "rows.bin").unlink()
    raw = bytearray((data / toy.tasks[1] / "rows.bin").read_bytes())
    raw[100] ^= 1
    (data / toy.tasks[1] / "rows.bin").write_bytes(raw)
    assert main(["data", "verify", str(data)]) == 1
    shown = capfd.readouterr()
    assert f"task {toy.tasks[0]}: the file cannot be opened" in shown.out
    assert f"task {toy.tasks[1]}, episodes 0 to 23: the bytes differ" in shown.out
    assert "2 problem(s)" in shown.err


def test_a_store_with_another_writer_may_be_read(path):
    """What a writer appends is no change of what is read."""
    sampler = WindowSampler(EpisodeStore.open(path), 4, 64, 0, memory=0)
    before = sampler.batch(0)
    with EpisodeStore.open(path, "a") as writer:
        for i in range(3):
            time.sleep(0.01)
            writer.append("small", [make_episode(SMALL, 5, i)], "test")
            assert_same(sampler.batch(0), before)
