from __future__ import annotations

import gc
import resource
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import result_of_fork
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import LARGE, SMALL, SUITE, coded_store, make_episode, sparse_store

from pwm.core.errors import PwmError
from pwm.core.suites import SUITES, Suite, Task
from pwm.data.problems import BadData
from pwm.data.ranking import best_first
from pwm.data.splits import episodes_in_split
from pwm.data.start_states import StatePool
from pwm.data.store import EpisodeStore
from pwm.data.windows.in_memory import ResidentWindows
from pwm.data.windows.on_disk import StoredWindows
from pwm.data.windows.sampler import Batch, WindowSampler
from pwm.pretraining.normalization import STD_FLOOR, observation_moments


def same(a: Batch, b: Batch) -> bool:
    pairs = list(zip(a, b, strict=True))
    return all(x is y if x is None else torch.equal(x, y) for x, y in pairs)


def assert_true_windows(batch: Batch, suite: Suite, stored: Suite) -> None:
    """Every number of a batch of coded episodes is the one the store holds at that place."""
    horizon, size = batch.reward.shape
    assert batch.obs.shape == (horizon + 1, size, suite.obs_dim)
    assert batch.action.shape == (horizon, size, suite.action_dim)
    assert batch.task.dtype == torch.int64
    assert batch.obs.dtype == torch.float32
    row, episode, stored_id = batch.obs[..., 0], batch.obs[..., 1], batch.obs[..., 2]
    assert torch.equal(row, row[:1] + torch.arange(horizon + 1.0)[:, None]), "successive rows"
    assert (episode == episode[:1]).all(), "one episode a window"
    assert (batch.action[..., 0] == row[1:] / 1000).all(), "the action that led there"
    assert (batch.reward == row[1:] + 1000 * episode[1:]).all(), "the reward that led there"
    assert not batch.obs[..., 3:].any(), "zero padding"
    assert not batch.action[..., 1:].any(), "zero padding"
    names = [suite.tasks[i].name for i in batch.task]
    assert [stored.id(name) for name in names] == stored_id[0].int().tolist()


@settings(max_examples=40, deadline=None)
@given(
    small=st.lists(st.integers(1, 12), min_size=1, max_size=25),
    large=st.lists(st.integers(1, 12), min_size=1, max_size=25),
    horizon=st.integers(1, 12),
    split=st.sampled_from(["train", "held_out", "all"]),
    balance=st.sampled_from(["task", "rows"]),
    step=st.integers(0, 10**6),
)
def test_windows_never_cross_episodes_nor_use_row_0(
    tmp_path_factory, small, large, horizon, split, balance, step
):
    store = coded_store(tmp_path_factory.mktemp("s") / "store", {"small": small, "large": large})
    allowed = {}
    for task, lengths in enumerate((small, large)):
        inside = episodes_in_split(len(lengths), split)
        allowed[task] = {i for i, n in enumerate(lengths) if inside[i] and n >= horizon}
    if not all(allowed.values()):
        empty = "small" if not allowed[0] else "large"
        with pytest.raises(PwmError, match=f"task '{empty}' has no episode of {horizon + 1} rows"):
            WindowSampler(store, horizon, 64, 0, split=split, balance=balance)
        return
    sampler = WindowSampler(store, horizon, 64, 0, split=split, balance=balance)
    batch = sampler.batch(step)
    assert_true_windows(batch, SUITE, SUITE)
    for task, episode in zip(batch.task.tolist(), batch.obs[0, :, 1].int().tolist(), strict=True):
        assert episode in allowed[task]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    lengths = {"small": [19] * 45, "large": [10, 3, 20, 7] * 11}
    return coded_store(tmp_path_factory.mktemp("sampler") / "store", lengths)


def test_a_batch_depends_on_seed_and_step_alone(store):
    one, two = WindowSampler(store, 4, 32, 7), WindowSampler(store, 4, 32, 7)
    later = [two.batch(step) for step in (9, 3, 0)]
    assert all(same(one.batch(step), batch) for step, batch in zip((9, 3, 0), later, strict=True))
    assert not same(one.batch(0), one.batch(1))
    assert not same(one.batch(0), WindowSampler(store, 4, 32, 8).batch(0))


def test_the_horizon_may_change_between_steps(store):
    sampler = WindowSampler(store, 4, 32, 7)
    batch = sampler.batch(5, horizon=10)
    assert_true_windows(batch, SUITE, SUITE)
    assert batch.reward.shape[0] == 10
    assert same(batch, WindowSampler(store, 10, 32, 7).batch(5))
    assert same(sampler.batch(5), WindowSampler(store, 4, 32, 7).batch(5))


@pytest.mark.parametrize("balance", ["task", "rows"])
def test_batches_are_the_same_wherever_the_rows_live(store, balance):
    superset = Suite("big", (LARGE, Task("other", "metaworld", 9, 4, 20), SMALL))
    samplers = [
        WindowSampler(store, 4, 101, 3, suite=superset, balance=balance, memory=memory)
        for memory in (0, 2**30)
    ]
    assert [type(s._windows) for s in samplers] == [StoredWindows, ResidentWindows]
    for step in range(5):
        in_files, in_memory = (sampler.batch(step, horizon=step + 1) for sampler in samplers)
        assert same(in_files, in_memory)
        assert_true_windows(in_memory, superset, SUITE)


def test_rows_on_a_device_are_taken_as_those_in_memory(store):
    """The GPU's way of taking windows, on the processor."""
    windows = ResidentWindows(store, SUITE.tasks, SUITE, torch.device("cpu"), BadData())
    index = np.arange(6)[:, None] + np.array([3, 50, 900])
    for a, b in zip(windows._take_on_device(index), windows._take_on_host(index), strict=True):
        assert torch.equal(a, b)


def test_where_rows_may_live(store):
    with pytest.raises(PwmError, match="unknown data_device 'disk'"):
        WindowSampler(store, 4, 32, 7, data_device="disk")
    with pytest.raises(PwmError, match="data_device=cuda needs device=cuda"):
        WindowSampler(store, 4, 32, 7, data_device="cuda")


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("memory", [0, 2**20])
def test_shares_of_a_batch_make_up_the_whole(store, parts, memory):
    whole = WindowSampler(store, 3, 12, 0, memory=memory)
    shares = [WindowSampler(store, 3, 12, 0, memory=memory, share=(i, parts)) for i in range(parts)]
    for step in range(3):
        batch = whole.batch(step)
        for i, share in enumerate(shares):
            assert same(share.batch(step), batch.part(slice(i, None, parts)))


def test_every_window_is_drawn_equally_often(tmp_path):
    """Two episodes of 5 and 3 windows: each of the 8 windows has the same share."""
    store = coded_store(tmp_path / "store", {"small": [7, 5]}, Suite("one", (SMALL,)))
    sampler = WindowSampler(store, 3, 8000, 0, split="all")
    batch = sampler.batch(0)
    windows, counts = np.unique(batch.obs[0, :, :2].numpy().astype(int), axis=0, return_counts=True)
    assert windows.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1], [3, 0], [4, 0]]
    assert sampler.windows() == {"small": 8}
    assert (abs(counts - 1000) < 5 * np.sqrt(1000)).all()


def test_balance_by_task_and_by_rows(tmp_path):
    store = coded_store(tmp_path / "store", {"small": [8] * 9, "large": [8]})
    by_task = WindowSampler(store, 3, 101, 0, split="all")
    shares = torch.stack([by_task.batch(step).task.bincount() for step in range(50)])
    assert set(shares.flatten().tolist()) == {50, 51}
    assert 10 < (shares[:, 0] == 51).sum() < 40, "what does not divide goes to either"
    by_rows = WindowSampler(store, 3, 5000, 0, split="all", balance="rows")
    assert by_rows.batch(0).task.bincount()[1] == pytest.approx(500, abs=100)
    one = WindowSampler(store, 3, 1, 0, split="all")
    assert {int(one.batch(step).task[0]) for step in range(20)} == {0, 1}


def test_tasks_have_the_shares_they_are_given(store):
    sampler = WindowSampler(store, 2, 10, seed=0)
    sampler.task_shares = np.array([0.13, 0.87])
    counts = np.array([sampler.batch(step).task.bincount(minlength=2)[0] for step in range(300)])
    assert set(counts) == {1, 2}
    assert counts.mean() == pytest.approx(1.3, abs=0.1)
    sampler.task_shares = np.array([0.0, 1.0])
    assert sampler.batch(0).task.unique().tolist() == [1]
    sampler.task_shares = None
    assert same(sampler.batch(3), WindowSampler(store, 2, 10, seed=0).batch(3))


def test_ids_and_padding_follow_the_given_suite(store):
    other = Task("other", "metaworld", 9, 4, 20)
    superset = Suite("big", (LARGE, other, SMALL))
    batch = WindowSampler(store, 4, 64, 0, suite=superset).batch(0)
    assert_true_windows(batch, superset, SUITE)
    assert set(batch.task.tolist()) == {0, 2}
    subset = Suite("only", (SMALL,))
    batch = WindowSampler(store, 4, 64, 0, suite=subset).batch(0)
    assert_true_windows(batch, subset, SUITE)
    assert batch.obs.shape[-1] == 3
    assert set(batch.task.tolist()) == {0}
    batch = WindowSampler(store, 4, 64, 0, suite=superset, tasks=["small"]).batch(0)
    assert_true_windows(batch, superset, SUITE)
    assert set(batch.task.tolist()) == {2}
    with pytest.raises(PwmError, match="no task of suite 'quick'"):
        WindowSampler(store, 4, 64, 0, suite=SUITES["quick"])
    with pytest.raises(PwmError, match="is not in suite"):
        WindowSampler(store, 4, 64, 0, suite=superset, tasks=["other"])


def test_settings_that_do_not_fit_are_refused(store):
    for horizon, size, seed in ((0, 1, 0), (1, 0, 0), (1, 1, -1)):
        with pytest.raises(PwmError, match="at least"):
            WindowSampler(store, horizon, size, seed)
    with pytest.raises(PwmError, match="unknown split"):
        WindowSampler(store, 1, 1, 0, split="test")
    with pytest.raises(PwmError, match="unknown balance"):
        WindowSampler(store, 1, 1, 0, balance="none")
    sampler = WindowSampler(store, 4, 8, 0)
    with pytest.raises(PwmError, match="task 'small' has no episode of 31 rows"):
        sampler.batch(0, horizon=30)
    with pytest.raises(PwmError, match="task 'small' has no episode of 31 rows"):
        next(sampler.iterate(0, 5, horizon=30))


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_splits_are_disjoint_complete_and_stable_under_appends(count, more):
    train, held_out = (episodes_in_split(count, split) for split in ("train", "held_out"))
    assert (train ^ held_out).all()
    assert episodes_in_split(count, "all").all()
    assert held_out.sum() == (count // 20 if count >= 20 else count >= 2)
    assert count == 0 or train.any()
    if count >= 20:
        assert (episodes_in_split(count + more, "held_out")[:count] == held_out).all()
        assert held_out[19]


def test_train_and_held_out_batches_share_no_episode(store):
    seen = {}
    for split in ("train", "held_out"):
        batch = WindowSampler(store, 3, 2000, 0, split=split).batch(0)
        pairs = torch.stack([batch.task.float(), batch.obs[0, :, 1]], 1)
        seen[split] = {tuple(pair) for pair in pairs.int().tolist()}
    assert not seen["train"] & seen["held_out"]
    assert {episode for _, episode in seen["held_out"]} == {19, 39}


def test_prefetched_batches_are_those_of_batch(store):
    sampler = WindowSampler(store, 4, 16, 3)
    batches = list(sampler.iterate(5, 25, horizon=6))
    assert len(batches) == 20
    assert all(same(sampler.batch(5 + i, horizon=6), b) for i, b in enumerate(batches))
    assert list(sampler.iterate(4, 4)) == []


def sampler_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "window-sampler" in thread.name]


def test_the_prefetch_thread_ends_with_its_iterator(store):
    sampler = WindowSampler(store, 4, 16, 3)
    for _ in sampler.iterate(0, 10**9):
        break
    gc.collect()
    iterator = sampler.iterate(0, 10**9)
    next(iterator)
    assert sampler_threads()
    iterator.close()
    assert not sampler_threads()


def test_an_error_in_the_prefetch_thread_reaches_the_caller(store, monkeypatch):
    sampler = WindowSampler(store, 4, 16, 3)
    gather = sampler._gather

    def fail_at_3(step, horizon):
        if step == 3:
            raise ValueError("broken disk")
        return gather(step, horizon)

    monkeypatch.setattr(sampler, "_gather", fail_at_3)
    seen = []
    batches = sampler.iterate(0, 10)
    with pytest.raises(ValueError, match="broken disk"):
        seen.extend(batches)
    assert len(seen) == 3
    assert not sampler_threads()


def test_a_sampler_keeps_to_the_episodes_of_its_opening(tmp_path):
    path = coded_store(tmp_path / "store", {"small": [8] * 3, "large": [8] * 3}).path
    sampler = WindowSampler(EpisodeStore.open(path), 3, 64, 0)
    before = sampler.batch(0)
    with EpisodeStore.open(path, "a") as writer:
        writer.append("small", [make_episode(SMALL, 30)], "test")
    assert same(sampler.batch(0), before)


def pages_of_this_process() -> tuple[int, int]:
    """Bytes of its address space, and of those that are resident."""
    size, resident, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return size * resource.getpagesize(), resident * resource.getpagesize()


def growth_while_reading(path: Path, memory: int, room: int) -> int | str:
    """Resident bytes beyond those before the first batch, or what the sampler refuses with.

    Args:
        path: of a store.
        memory: that rows may take.
        room: address space that may be added, if it is not 0.
    """
    if room:
        limit = pages_of_this_process()[0] + room
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        sampler = WindowSampler(EpisodeStore.open(path), 15, 64, 0, memory=memory)
    except PwmError as error:
        return str(error)
    before = pages_of_this_process()[1]
    return max(pages_of_this_process()[1] for _ in sampler.iterate(0, 60)) - before


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="reads Linux's figures of memory"
)


@pytest.fixture(scope="module")
def big_store(tmp_path_factory):
    """A store of 8 GiB: rows that are zero, which a sparse file holds without taking room."""
    task = Task("wide", "metaworld", 1000, 4, 500)
    return sparse_store(tmp_path_factory.mktemp("big") / "store", task, 4300)


@needs_proc
@pytest.mark.parametrize("room", [0, 4 * 2**30], ids=["bounded", "bounded, and enforced"])
def test_a_store_larger_than_memory_may_be_is_read_within_the_bound(big_store, room):
    assert (big_store / "wide" / "rows.bin").stat().st_size > 8 * 2**30
    assert result_of_fork(growth_while_reading, big_store, 2**26, room) < 2**26


@needs_proc
def test_more_memory_than_there_is_is_a_sentence(big_store):
    said = result_of_fork(growth_while_reading, big_store, 2**40, 4 * 2**30)
    assert "there is no memory for 8.0 GiB of data; lower data_memory" in said


def test_a_gather_costs_little_more_than_a_bare_one(tmp_path):
    store = coded_store(tmp_path / "store", {"small": [100] * 50, "large": [100] * 50})
    sampler = WindowSampler(store, 16, 1024, 0)
    matrix = np.zeros((10_000, 8), np.float32)
    starts = np.random.default_rng(0).integers(0, 9_000, 1024)[:, None] + np.arange(17)

    def fastest(call) -> float:
        times = []
        for step in range(30):
            began = time.perf_counter()
            call(step)
            times.append(time.perf_counter() - began)
        return min(times)

    assert fastest(sampler.batch) < 10 * fastest(lambda step: matrix[starts])


def test_a_state_pool_holds_states_with_what_was_done_and_came_of_it(store):
    pool = StatePool.draw(store, "large", 200, 0, discount=0.9)
    assert len(pool) == 200
    row, episode = pool.obs[:, 0], pool.obs[:, 1]
    assert torch.equal(pool.action[:, 0], (row + 1) / 1000)
    assert pool.obs.shape == (200, 5)
    assert pool.action.shape == (200, 2)
    assert len({(int(r), int(e)) for r, e in zip(row, episode, strict=True)}) == 200
    lengths = [10, 3, 20, 7] * 11
    for i in range(200):
        steps, e = lengths[int(episode[i])], int(episode[i])
        rewards = np.arange(1, steps + 1) + 1000.0 * e
        after = rewards[int(row[i]) :]
        expected = (after * 0.9 ** np.arange(len(after))).sum()
        assert pool.return_to_go[i] == pytest.approx(expected, rel=1e-5)
        assert pool.episode_return[i] == pytest.approx(rewards.sum())
    assert not {19, 39} & {int(e) for e in episode}, "held-out episodes stay out"


@pytest.mark.parametrize("ahead", [1, 4])
@pytest.mark.parametrize("symlog_rewards", [False, True])
def test_a_state_pool_tells_what_followed(store, ahead, symlog_rewards):
    pool = StatePool.draw(
        store, "large", 300, 0, discount=0.9, ahead=ahead, symlog_rewards=symlog_rewards
    )
    lengths = [10, 3, 20, 7] * 11
    ends = 0
    for i, (row, episode) in enumerate(pool.obs[:, :2].int().tolist()):
        steps = min(ahead, lengths[episode] - row)
        ends += steps < ahead
        rewards = row + 1 + np.arange(steps) + 1000.0 * episode
        if symlog_rewards:
            rewards = np.log1p(rewards)
        assert pool.next_obs[i, :2].tolist() == [row + steps, episode]
        assert pool.reward[i] == pytest.approx((rewards * 0.9 ** np.arange(steps)).sum(), rel=1e-5)
        assert pool.next_discount[i] == pytest.approx(0.9**steps)
        to_go = 0.9 ** np.arange(lengths[episode] - row)
        assert pool.steps_to_go[i] == pytest.approx(to_go.sum(), rel=1e-5)
    assert (ends > 0) == (ahead > 1)


def test_a_state_pool_is_deterministic_and_at_most_all_rows(store):
    def draw(**changes):
        return StatePool.draw(**{"store": store, "task": "large", "n": 50, "seed": 1, **changes})

    assert torch.equal(draw().obs, draw().obs)
    assert not torch.equal(draw().obs, draw(seed=2).obs)
    everything = draw(n=10**6)
    train = [n for i, n in enumerate([10, 3, 20, 7] * 11) if i not in (19, 39)]
    assert len(everything) == sum(train)
    wide = Suite("wide", (LARGE, Task("other", "metaworld", 9, 4, 20)))
    assert draw(suite=wide).obs.shape == (50, 9)
    best = draw(n=10**6, best=0.1)
    ranked = [e for e in best_first(store, "large").tolist() if e not in (19, 39)]
    assert set(best.obs[:, 1].int().tolist()) == set(ranked[:4])
    newest = draw(n=10**6, newest=0.5)
    assert set(newest.obs[:, 1].int().tolist()) == set(range(22, 44)) - {39}
    best_of_newest = draw(n=10**6, newest=0.5, best=0.2)
    ranked = [e for e in ranked if e >= 22]
    assert set(best_of_newest.obs[:, 1].int().tolist()) == set(ranked[:4])
    with pytest.raises(PwmError, match="newest is 0"):
        draw(newest=0)
    with pytest.raises(PwmError, match="share of the episodes"):
        draw(best=0.0)


def test_a_state_pool_of_a_task_without_episodes_is_refused(tmp_path):
    store = coded_store(tmp_path / "store", {"small": [5]})
    with pytest.raises(PwmError, match="task 'large' has no train episode"):
        StatePool.draw(store, "large", 5, 0)


def test_observation_moments_are_those_of_the_train_episodes(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "store"
    kept = []
    with EpisodeStore.create(path, SUITE) as store:
        store.add_source("test", {})
        for commit in range(6):
            episodes = [
                make_episode(LARGE, int(rng.integers(1, 9)), 100 * commit + i) for i in range(100)
            ]
            for i, episode in enumerate(episodes):
                episode.obs = episode.obs * 3 + 1000 + 10 * commit
                episode.obs[:, 2] = 5.0
                if (100 * commit + i) % 20 != 19:
                    kept.append(episode.obs)
            store.append("large", episodes, "test")
    mean, std = observation_moments(EpisodeStore.open(path))
    rows = np.concatenate(kept).astype(np.float64)
    assert mean.shape == std.shape == (2, 5)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean[1], rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std[1, [0, 1, 3, 4]], rows.std(0)[[0, 1, 3, 4]], rtol=1e-5)
    assert std[1, 2] == np.float32(STD_FLOOR), "an entry that never changes"
    assert not mean[0].any(), "a task without data"
    assert (std[0] == 1).all(), "a task without data"
    superset = Suite("big", (Task("other", "metaworld", 9, 4, 20), LARGE))
    wide_mean, wide_std = observation_moments(EpisodeStore.open(path), superset)
    np.testing.assert_array_equal(wide_mean[1, :5], mean[1])
    assert not wide_mean[:, 5:].any(), "padding"
    assert (wide_std[:, 5:] == 1).all(), "padding"


def test_of_very_many_rows_the_moments_are_those_of_evenly_spread_episodes(store, monkeypatch):
    table = store.episodes("large")
    train = [i for i in range(len(table)) if i not in (19, 39)]
    monkeypatch.setattr("pwm.data.splits._ROWS", int(table["length"][train].sum()) // 3 + 1)
    mean, std = observation_moments(store)
    rows = np.concatenate([store.episode("large", i).obs for i in train[::3]]).astype(np.float64)
    np.testing.assert_allclose(mean[1], rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std[1, :2], rows.std(0)[:2], rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.gpu
@pytest.mark.parametrize(
    ("data_device", "memory"), [("cuda", 0), ("auto", 0), ("cpu", 2**30), ("cpu", 0)]
)
def test_batches_arrive_on_the_gpu(store, data_device, memory):
    on_gpu = WindowSampler(store, 4, 16, 3, device="cuda", data_device=data_device, memory=memory)
    on_cpu = WindowSampler(store, 4, 16, 3)
    for step, batch in enumerate(on_gpu.iterate(0, 50)):
        assert batch.obs.is_cuda
        assert same(batch.to("cpu"), on_cpu.batch(step))
    assert same(on_gpu.batch(7).to("cpu"), on_cpu.batch(7))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.gpu
def test_pinned_memory_is_not_filled_again_before_it_is_copied(store):
    """With a GPU that is far behind, every batch still arrives as it was drawn."""
    sampler = WindowSampler(store, 4, 16, 3, device="cuda", data_device="cpu")
    on_cpu = WindowSampler(store, 4, 16, 3)
    busy = torch.randn(4096, 4096, device="cuda")
    kept = []
    for batch in sampler.iterate(0, 40):
        for _ in range(20):
            busy = busy @ busy / 4096
        kept.append(batch)
    for step, batch in enumerate(kept):
        assert same(batch.to("cpu"), on_cpu.batch(step))
