from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from stores import LARGE, SMALL, SUITE, coded_store, make_episode

from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.suites import Suite
from pwm.data import copy_episodes
from pwm.data.inspection import verify
from pwm.data.merge_stores import merge
from pwm.data.pack_sample import SampleConfig, sample
from pwm.data.store import EpisodeStore


def other_store(path, task=SMALL, source="agents", behaviour="sac", episodes=3, about=None):
    """Random episodes of one task, of a source and a behaviour of their own."""
    with EpisodeStore.create(path, Suite("other", (task,))) as store:
        store.add_source(source, about or {"command": "collect"})
        made = [make_episode(task, 6 + i, 10 + i, behaviour) for i in range(episodes)]
        store.append(task.name, made, source)
    return EpisodeStore.open(path)


def test_every_episode_of_every_store_is_there_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(copy_episodes, "_ROWS", 4)  # rows of an episode arrive in several parts
    first = coded_store(tmp_path / "a", {"small": [5, 3], "large": [4]})
    second = other_store(tmp_path / "b")
    merged = EpisodeStore.open(merge(str(tmp_path / "out"), [str(first.path), str(second.path)]))
    assert merged.suite == SUITE
    assert list(merge_counts(merged)) == [5, 1]
    for store, offset in ((first, 0), (second, 2)):
        for i in range(store.count("small")):
            old, new = store.episode("small", i), merged.episode("small", offset + i)
            for field in dataclasses.fields(old):
                mine, theirs = (getattr(e, field.name) for e in (new, old))
                assert np.array_equal(mine, theirs), field.name
    table = merged.episodes("small")
    assert [list(merged.sources)[i] for i in table["source"]] == ["test"] * 2 + ["agents"] * 3
    assert (table["return"][2:] == second.episodes("small")["return"]).all()
    assert not list(verify(merged))


def merge_counts(store):
    return (store.count(name) for name in store.suite.names)


def test_pieces_of_a_sample_stay_pieces(tmp_path):
    whole = coded_store(tmp_path / "a", {"small": [20] * 8})
    config = SampleConfig(str(whole.path), str(tmp_path / "s"), None, 6, whole=2, rows=5)
    packed = EpisodeStore.open(sample(config))
    other = other_store(tmp_path / "b")
    merged = EpisodeStore.open(merge(str(tmp_path / "out"), [str(other.path), str(packed.path)]))
    table, before = merged.episodes("small")[3:], packed.episodes("small")
    for name in ("is_piece", "return", "length", "seed"):
        assert (table[name] == before[name]).all()
    assert table["is_piece"].sum() == 4
    rows = merged.rows("small", int(table["start"][0]))
    assert np.array_equal(rows["obs"], packed.rows("small")["obs"])


def test_stores_of_different_tasks_come_to_a_suite_of_all(tmp_path):
    stores = [other_store(tmp_path / task.name, task) for task in (LARGE, SMALL)]
    merged = EpisodeStore.open(merge(str(tmp_path / "out"), [str(s.path) for s in stores]))
    assert merged.suite.names == ("large", "small")


def test_what_cannot_be_merged_is_said_and_leaves_nothing(tmp_path):
    a = other_store(tmp_path / "a")
    wider = other_store(tmp_path / "wide", dataclasses.replace(SMALL, obs_dim=4))
    otherwise = other_store(tmp_path / "otherwise", about={"command": "convert"})
    for second, wrong in (
        (a, "are the same store; give each once"),
        (wider, "task 'small' is not the same in"),
        (otherwise, "source 'agents' of .* is described otherwise"),
    ):
        with pytest.raises(PwmError, match=wrong):
            merge(str(tmp_path / "out"), [str(a.path), str(second.path)])
        assert not list(tmp_path.glob("out*"))
    (tmp_path / "out.unfinished").mkdir()  # of a merge that was killed
    b = other_store(tmp_path / "b", episodes=2)
    assert merge(str(tmp_path / "out"), [str(a.path), str(b.path)])
    with pytest.raises(PwmError, match="out is there already; give a new directory"):
        merge(str(tmp_path / "out"), [str(a.path), str(b.path)])


def test_the_command_shows_what_it_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    paths = [str(other_store(tmp_path / name, episodes=n).path) for name, n in (("a", 3), ("b", 2))]
    assert main(["data", "merge", str(tmp_path / "out"), *paths]) == 0
    assert "agents (5 episodes)" in capsys.readouterr().out
    assert main(["data", "merge", str(tmp_path / "out")]) == 1
    assert "pwm data merge OUT DIR DIR" in capsys.readouterr().err
