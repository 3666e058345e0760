from __future__ import annotations

import pytest

from pwm.pipelines.episode_budget import StalledConfig, next_episode_budget


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
    assert next_episode_budget(scores, episodes=40, least=6, improvement=2.0) == episodes


def test_least_does_not_exceed_what_is_asked_for():
    assert next_episode_budget([90.0] * 5, episodes=3, least=6, improvement=2.0) == 3


@pytest.mark.parametrize(
    ("scores", "episodes"),
    [
        ([], 0),
        ([0.0], 0),
        ([0.0, 1.0], 0),
        ([0.0, 1.0, 1.0], 20),
        ([0.0, 1.0, 1.0, 1.0], 40),  # the same agent goes on
        ([0.0, 1.0, 1.0, 9.0], 0),  # it rose
        ([0.0, 1.0, 1.0, 9.0, 9.0, 9.0], 40),
        ([60.0, 9.0, 9.0], 0),  # good enough once
    ],
)
def test_an_agent_fills_in_where_a_low_score_has_stalled(scores, episodes):
    stalled = StalledConfig(episodes=20, after=2, below=50.0)
    assert stalled.wanted(scores, improvement=2.0) == episodes
