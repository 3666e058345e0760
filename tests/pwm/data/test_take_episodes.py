from __future__ import annotations

import pytest
from stores import coded_store

from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.data import take_episodes
from pwm.data.inspection import verify
from pwm.data.store import EpisodeStore
from pwm.data.take_episodes import take


@pytest.fixture
def whole(tmp_path):
    return coded_store(tmp_path / "whole", {"small": [5, 3, 9, 4, 6, 8], "large": [4, 7, 5]})


def taken(whole, out, episodes, tasks=(), seed=0):
    return EpisodeStore.open(take(str(out), str(whole.path), episodes, tasks, seed))


def originals(part, task):
    """Which of the whole store's episodes a part has, as their observations say."""
    return [int(part.episode(task, n).obs[0, 1]) for n in range(part.count(task))]


def test_some_episodes_of_each_task_are_taken_as_they_are(whole, tmp_path):
    part = taken(whole, tmp_path / "part", 3)
    assert part.suite == whole.suite
    for task in ("small", "large"):
        found = originals(part, task)
        assert found == sorted(set(found)) and len(found) == 3
        before = whole.episodes(task)[found]
        after = part.episodes(task)
        for name in ("seed", "return", "length", "success_any", "is_piece"):
            assert (after[name] == before[name]).all(), name
    assert not list(verify(part))
    assert dict(part.sources) == dict(whole.sources)


def test_fewer_are_some_of_more_and_seeds_differ(whole, tmp_path):
    found = {
        (n, seed): originals(taken(whole, tmp_path / f"{n}_{seed}", n, ["small"], seed), "small")
        for n, seed in ((2, 0), (4, 0), (4, 1), (4, 2))
    }
    assert set(found[2, 0]) < set(found[4, 0])
    assert len({tuple(found[4, seed]) for seed in (0, 1, 2)}) > 1


def test_tasks_that_are_named_are_a_suite_in_their_order(whole, tmp_path):
    assert taken(whole, tmp_path / "part", 1, ["large"]).suite.names == ("large",)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["3", "smal"], "has no task 'smal'; did you mean 'small'"),
        (["4", "large"], "has 3 episodes of large; take between one and all of them, not 4"),
        (["0"], "has 6 episodes of small; take between one and all of them, not 0"),
        (["2", "seed=x"], "pwm data take has one seed=, a whole number from 0"),
        (["two"], "pwm data does not understand 'take"),
    ],
)
def test_what_cannot_be_taken_is_said_and_leaves_nothing(whole, tmp_path, capsys, words, said):
    assert main(["data", "take", str(tmp_path / "part"), str(whole.path), *words])
    assert said in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole"]


def test_the_command_takes_with_a_seed_and_shows_what_it_took(whole, tmp_path, capsys):
    out = tmp_path / "part"
    assert not main(["data", "take", str(out), str(whole.path), "2", "small", "seed=1"])
    assert "small" in capsys.readouterr().out
    again = taken(whole, tmp_path / "again", 2, ["small"], seed=1)
    assert originals(EpisodeStore.open(out), "small") == originals(again, "small")


def test_a_take_that_fails_leaves_nothing(whole, tmp_path, monkeypatch):
    def broken(*args):
        raise PwmError("the disk is full")

    monkeypatch.setattr(take_episodes, "copy_episodes", broken)
    with pytest.raises(PwmError, match="disk is full"):
        take(str(tmp_path / "part"), str(whole.path), 2, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole"]
