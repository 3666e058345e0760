from __future__ import annotations

import lzma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import LARGE, make_episode

from pwm.core.errors import PwmError
from pwm.core.suites import Suite
from pwm.data.episode import EPISODE_DTYPE, row_dtype
from pwm.data.packed import holds_exactly, pack, unpack
from pwm.data.store import EpisodeStore

ROW = row_dtype(LARGE)


@pytest.fixture
def records(tmp_path):
    with EpisodeStore.create(tmp_path / "s", Suite("one", (LARGE,))) as store:
        store.add_source("test", {})
        store.append(LARGE.name, [make_episode(LARGE, 7, i) for i in range(3)], "test")
        return store.rows(LARGE.name), store.episodes(LARGE.name)


def test_what_is_unpacked_has_the_same_bytes(records):
    rows, table = records
    rows["obs"][:, 1] = np.round(rows["obs"][:, 1])  # a column for float16 among others
    back = unpack(pack(rows, table), ROW, EPISODE_DTYPE, (len(rows), len(table)))
    assert back[0].tobytes() == rows.tobytes()
    assert back[1].tobytes() == table.tobytes()


@settings(max_examples=25)
@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_any_float_survives(values):
    rows = np.zeros(len(values), ROW)
    rows["obs"][:, 0] = rows["reward"] = values
    table = np.zeros(1, EPISODE_DTYPE)
    back, _ = unpack(pack(rows, table), ROW, EPISODE_DTYPE, (len(rows), 1))
    assert back.tobytes() == rows.tobytes()


def test_only_columns_of_half_floats_are_held_exactly():
    values = np.array([[0.5, 0.1, 1e6, np.nan, 65504]], np.float32)
    assert holds_exactly(values).tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("position", range(0, 400, 7))
def test_a_damaged_file_is_refused(records, position):
    rows, table = records
    data = bytearray(pack(rows, table))
    data[position % len(data)] ^= 1
    with pytest.raises(PwmError, match="does not hold what was packed"):
        unpack(bytes(data), ROW, EPISODE_DTYPE, (len(rows), len(table)))


@pytest.mark.parametrize("change", [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_other_counts_are_refused(records, change):
    rows, table = records
    counts = len(rows) + change[0], len(table) + change[1]
    with pytest.raises(PwmError, match="does not hold what was packed"):
        unpack(pack(rows, table), ROW, EPISODE_DTYPE, counts)


def test_a_file_that_would_fill_the_memory_is_refused():
    bomb = lzma.compress(bytes(2**22))
    with pytest.raises(PwmError, match="longer than its rows"):
        unpack(bomb, ROW, EPISODE_DTYPE, (10, 1))
