from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pwm.core.errors import PwmError
from pwm.pipelines.best_policies import best_so_far, keep_best
from pwm.reporting.growth_rounds import Round, TaskRound

SCORES = {"a": (10.0, 40.0, 30.0), "b": (5.0, 5.0, 90.0)}


def rounds_of(count: int) -> list[Round]:
    return [
        Round(n, 0.0, None, {t: TaskRound(1, 1, 9, s[n], None, 0.0) for t, s in SCORES.items()})
        for n in range(count)
    ]


@pytest.fixture
def run(tmp_path) -> Path:
    for number in range(3):
        for task in SCORES:
            policy = tmp_path / str(number) / task
            policy.mkdir(parents=True)
            (policy / "weights").write_text(f"{task} {number}")
    return tmp_path


def kept(run: Path, count: int) -> dict[str, str]:
    keep_best(run / "best", rounds_of(count), lambda number: run / str(number))
    assert {path.name for path in (run / "best").iterdir()} == set(SCORES)
    return {task: (run / "best" / task / "weights").read_text() for task in SCORES}


def test_each_task_keeps_the_policy_that_scored_best_and_of_two_the_later(run):
    assert [best_so_far(rounds_of(2), task) for task in SCORES] == [(1, 40.0), (1, 5.0)]
    assert kept(run, 1) == {"a": "a 0", "b": "b 0"}
    assert kept(run, 2) == {"a": "a 1", "b": "b 1"}
    unchanged = (run / "best" / "a").stat().st_mtime_ns
    assert kept(run, 3) == {"a": "a 1", "b": "b 2"}
    assert (run / "best" / "a").stat().st_mtime_ns == unchanged


def test_on_other_episodes_the_best_so_far_counts_as_it_was_played_again_on_them():
    """Its 40 on the old ones says nothing about the new ones, where the last policy has 30."""
    before = rounds_of(3)
    for again, expected in ((20.0, (2, 30.0)), (35.0, (1, 35.0)), (None, (1, 40.0))):
        last = replace(before[2].tasks["a"], best_before=again)
        rounds = [*before[:2], replace(before[2], tasks={**before[2].tasks, "a": last})]
        assert best_so_far(rounds, "a") == expected


def test_what_an_interruption_or_a_change_left_is_made_good(run):
    kept(run, 3)
    (run / "best" / "a" / "weights").write_text("changed")
    (run / "best" / "b").rename(run / "best" / "b.unfinished")
    assert kept(run, 3) == {"a": "a 1", "b": "b 2"}


def test_a_policy_that_is_gone_is_named(run):
    (run / "1" / "a").rename(run / "elsewhere")
    with pytest.raises(PwmError, match=r"there is no .*1/a, the best policy of 'a' so far"):
        kept(run, 3)
