"""Pieces of episodes are not scored or ranked as if they were whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import LARGE, SMALL, SUITE, make_episode

from pwm.core.suites import Task
from pwm.data.cut_episodes import cut_episodes
from pwm.data.episode import Episode
from pwm.data.inspection import unscorable
from pwm.data.ranking import best_first
from pwm.data.store import EpisodeStore


def episode(task: Task, steps: int, ends: str = "") -> Episode:
    """It ends in what is named; each step costs 1, so that the shortest has the highest return."""
    made = make_episode(task, steps)
    last = np.arange(steps) == steps - 1
    return replace(
        made,
        reward=np.full(steps, -1, np.float32),
        terminated=last & (ends == "terminated"),
        success=last & (ends == "success"),
    )


def store(path: Path, task: Task, source: dict[str, Any], *episodes: Episode) -> EpisodeStore:
    with EpisodeStore.create(path, SUITE) as made:
        made.add_source("source", source)
        made.append(task.name, episodes, "source")
    return EpisodeStore.open(path)


@pytest.mark.parametrize(("task", "cut"), [(SMALL, [1, 0, 0, 1]), (LARGE, [1, 0, 0, 0])])
def test_short_episodes_that_did_not_end_by_themselves_are_pieces(tmp_path, task, cut):
    episodes = (
        *(episode(task, 12), episode(task, 12, "terminated"), episode(task, 20)),
        episode(task, 7, "success"),  # which counts where success is the score
    )
    found = cut_episodes(store(tmp_path, task, {"made_by": "a logger"}, *episodes), task)
    assert found.astype(int).tolist() == cut


def test_pieces_have_no_score_and_whole_episodes_have_one(tmp_path):
    source = {"made_by": "a logger"}
    pieces = store(tmp_path / "a", SMALL, source, episode(SMALL, 12), episode(SMALL, 20))
    assert unscorable(pieces, SMALL) == "1 episode (of fewer than 20 steps, and not terminated)"
    whole = store(tmp_path / "b", SMALL, source, episode(SMALL, 20))
    assert unscorable(whole, SMALL) is None
    for name, trusted in (("c", {"made_by": "pwm collect"}), ("d", {"whole_episodes": True})):
        short = store(tmp_path / name, SMALL, trusted, episode(SMALL, 12))
        assert unscorable(short, SMALL) is None
        assert unscorable(short, replace(SMALL, episode_length=30)) is not None


def test_pieces_are_ranked_behind_whole_episodes(tmp_path):
    lengths = 12, 20, 3
    found = store(tmp_path, SMALL, {}, *(episode(SMALL, steps) for steps in lengths))
    assert best_first(found, SMALL.name)[0] == 1
    better = replace(episode(SMALL, 3), reward=np.full(3, -0.5, np.float32))
    found = store(tmp_path / "b", SMALL, {}, episode(SMALL, 12), better, episode(SMALL, 20))
    assert best_first(found, SMALL.name).tolist() == [2, 1, 0]
