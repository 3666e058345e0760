from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import LARGE, SMALL, digests, make_episode

from envs import make_env
from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task, get_task
from pwm.data.inspection import verify
from pwm.data.store import EpisodeStore
from pwm.evaluation.agents import ActFunction
from pwm.evaluation.episode_log import EpisodeLog, Outcomes
from pwm.evaluation.episode_queue import run_episodes
from pwm.evaluation.evaluate import EvaluateConfig
from pwm.evaluation.play import play_and_record
from pwm.evaluation.recording import add_recorded, recording_into

TASK = replace(get_task("pendulum-swingup"), episode_length=8)
SUITE = Suite("two", (SMALL, TASK))
SEEDS = (3, 4, 5, 6)


class Quiet:
    def at(self, part: int) -> None: ...


@dataclass(frozen=True)
class Leaning:
    """Actions that follow from the observations, by a slope that names the agent."""

    slope: float = 1.0

    def identity(self, task: Task) -> dict[str, Any]:
        return {"slope": self.slope}

    def begin(self, task: Task, seeds: Sequence[int]) -> ActFunction:
        return lambda obs: np.tanh(self.slope * obs[:, : task.action_dim]).astype(np.float32)


class Pool:
    """Makes up what the jobs give; of four that are handed out together the last ends first."""

    workers = 1

    def __init__(self, stop_after: int = 1000) -> None:
        self._left = stop_after

    def run(self, next_job: Any, answer: Any) -> Any:
        jobs = list(iter(lambda: next_job(0), None))
        for first in range(0, len(jobs), 4):
            for job in reversed(jobs[first : first + 4]):
                if not self._left:
                    raise KeyboardInterrupt(signal.SIGINT)
                self._left -= 1
                _, task, seeds = job.arguments
                returns = np.array(seeds, float)
                outcomes = Outcomes(returns, returns, returns, steps=1, simulating_seconds=1.0)
                episodes = [make_episode(task, 5, seed) for seed in seeds]
                yield job, (outcomes, episodes) if job.function is play_and_record else outcomes


def test_recorded_episodes_are_those_that_were_scored():
    outcomes, episodes = play_and_record(Quiet(), Leaning(), TASK, SEEDS)  # type: ignore[arg-type]
    assert [episode.seed for episode in episodes] == list(SEEDS)
    env = make_env(TASK)
    for episode, total in zip(episodes, outcomes.returns, strict=True):
        assert episode.fault(TASK) is None
        assert len(episode.reward) == TASK.episode_length
        assert episode.reward.sum() == pytest.approx(total, rel=1e-5)
        obs = [env.reset(seed=episode.seed)[0]]
        steps = [env.step(action) for action in episode.action]
        assert np.array_equal(episode.obs, [*obs, *(step[0] for step in steps)])
        assert np.array_equal(episode.success, [step[4]["success"] > 0 for step in steps])
    env.close()


def evaluate_into(path: Path, agent: Leaning, pool: Pool, log: EpisodeLog, batch: int = 1) -> None:
    with recording_into(str(path), SUITE, "extracted", agent) as recording:
        agents = {"extracted": agent, "other": Leaning(7.0)}
        run_episodes(agents, SUITE.tasks, SEEDS, batch, pool, log, recording)  # type: ignore[arg-type]


def seeds_of(path: Path) -> dict[str, list[int]]:
    store = EpisodeStore.open(path)
    assert list(verify(store)) == []
    return {task.name: store.episodes(task.name)["seed"].tolist() for task in SUITE}


def test_stopped_anywhere_and_played_on_the_store_is_the_same(tmp_path):
    evaluate_into(tmp_path / "whole", Leaning(), Pool(), EpisodeLog())
    assert seeds_of(tmp_path / "whole") == {task.name: list(SEEDS) for task in SUITE}
    store = EpisodeStore.open(tmp_path / "whole")
    (source,) = store.sources.values()
    assert (source["made_by"], source["behaviour"]) == ("pwm evaluate", "policy")
    for jobs in range(1, 16, 3):
        log, stopped = EpisodeLog(), tmp_path / f"stopped{jobs}"
        with pytest.raises(KeyboardInterrupt):
            evaluate_into(stopped, Leaning(), Pool(jobs), log)
        evaluate_into(stopped, Leaning(), Pool(), log)
        assert digests(stopped, "*.bin") == digests(tmp_path / "whole", "*.bin"), jobs


def test_a_lost_log_records_nothing_twice_and_another_agent_adds_its_own(tmp_path):
    for _ in range(2):
        evaluate_into(tmp_path, Leaning(), Pool(), EpisodeLog())
    evaluate_into(tmp_path, Leaning(), Pool(), EpisodeLog(), batch=2)
    assert seeds_of(tmp_path) == {task.name: list(SEEDS) for task in SUITE}
    evaluate_into(tmp_path, Leaning(2.0), Pool(), EpisodeLog())
    assert seeds_of(tmp_path) == {task.name: 2 * list(SEEDS) for task in SUITE}


def test_what_was_played_before_without_being_recorded_is_named(tmp_path, capsys):
    log = EpisodeLog()
    evaluate_into(tmp_path / "one", Leaning(), Pool(), log)
    evaluate_into(tmp_path / "one", Leaning(), Pool(), log)
    assert "not recorded" not in capsys.readouterr().err
    evaluate_into(tmp_path / "two", Leaning(), Pool(), log)
    assert "Episodes of small and pendulum-swingup were played before" in " ".join(
        capsys.readouterr().err.split()
    )


def test_recorded_episodes_are_added_to_data_once(tmp_path):
    evaluate_into(tmp_path / "recorded", Leaning(), Pool(), EpisodeLog())
    with EpisodeStore.create(tmp_path / "data", SUITE) as data:
        data.add_source("other", {})
        data.append(SMALL.name, [make_episode(SMALL, 5, seed=SEEDS[0])], "other")
        for _ in range(2):
            add_recorded(data, EpisodeStore.open(tmp_path / "recorded"))
    assert seeds_of(tmp_path / "data") == {
        SMALL.name: [SEEDS[0], *SEEDS], TASK.name: list(SEEDS),
    }  # fmt: skip
    before, after = EpisodeStore.open(tmp_path / "recorded"), EpisodeStore.open(tmp_path / "data")
    assert np.array_equal(before.episode(TASK.name, 2).obs, after.episode(TASK.name, 2).obs)


def test_a_store_of_other_tasks_and_jobs_are_refused(tmp_path):
    EpisodeStore.create(tmp_path / "data", Suite("other", (LARGE,))).close()
    with pytest.raises(PwmError, match="whose tasks do not include"):
        evaluate_into(tmp_path / "data", Leaning(), Pool(), EpisodeLog())
    config = EvaluateConfig(policy="p", out=str(tmp_path), record="data")
    with pytest.raises(PwmError, match="leave record= out"):
        config.as_job()
