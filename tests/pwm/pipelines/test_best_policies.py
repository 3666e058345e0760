from __future__ import annotations

from pathlib import Path

import pytest

from pwm.core.errors import PwmError
from pwm.pipelines.best_policies import best_round, keep_best
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
    assert [best_round(rounds_of(2), task) for task in SCORES] == [1, 1]
    assert kept(run, 1) == {"a": "a 0", "b": "b 0"}
    assert kept(run, 2) == {"a": "a 1", "b": "b 1"}
    unchanged = (run / "best" / "a").stat().st_mtime_ns
    assert kept(run, 3) == {"a": "a 1", "b": "b 2"}
    assert (run / "best" / "a").stat().st_mtime_ns == unchanged


def test_what_an_interruption_or_a_change_left_is_made_good(run):
    kept(run, 3)
    (run / "best" / "a" / "weights").write_text("changed")
    (run / "best" / "b").rename(run / "best" / "b.unfinished")
    assert kept(run, 3) == {"a": "a 1", "b": "b 2"}


def test_a_policy_that_is_gone_is_named(run):
    (run / "1" / "a").rename(run / "elsewhere")
    with pytest.raises(PwmError, match=r"there is no .*1/a, the best policy of 'a' so far"):
        kept(run, 3)
