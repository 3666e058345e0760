from __future__ import annotations

import pytest

from pwm.allotment import allotted


@pytest.mark.parametrize(
    ("scores", "episodes"),
    [
        ([], 40),
        ([0.0], 40),
        ([0.0, 50.0], 40),
        ([0.0, 50.0, 51.0], 20),  # within the improvement asked for
        ([0.0, 50.0, 30.0], 20),
        ([0.0, 50.0, 30.0, 49.0], 10),  # better than the last, not than the best
        ([0.0, 50.0, 30.0, 60.0], 40),
        ([0.0] + [100.0] * 10, 6),
    ],
)
def test_a_task_that_stopped_improving_gets_fewer_but_never_none(scores, episodes):
    assert allotted(scores, episodes=40, least=6, improvement=2.0) == episodes


def test_least_does_not_exceed_what_is_asked_for():
    assert allotted([90.0] * 5, episodes=3, least=6, improvement=2.0) == 3
