"""Scores of policies, and what recorded data say of the same policies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from offline.choice_policies import Source
from offline.evaluation import evaluated

from pwm.core.suites import Task
from pwm.core.worker_pool import WorkerPool
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore
from pwm.evaluation.agents import SavedPolicies
from pwm.evaluation.predictions import Predictor
from pwm.extraction.estimate_settings import ScoreEstimateConfig
from pwm.extraction.expected_scores import ScoreEstimator, estimator_of
from pwm.models.policy import Policy, load_policy
from pwm.models.world_model import WorldModel, load_world_model
from pwm.runtime.checkpoint import is_checkpoint

_CPU = torch.device("cpu")
_STARTS = 2  # of imagined episodes


class Lines:
    """JSON lines by kind, task and policy: what is there is not done again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text() if path.is_file() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        self.found = {(x["kind"], x["task"], x["policy"]): x for x in lines}

    def add(self, kind: str, task: str, policy: str, **values: Any) -> None:
        """Keep a line."""
        line = {"kind": kind, "task": task, "policy": policy, **values}
        self.found[kind, task, policy] = line
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def policies_of(source: Source, benchmark: Path, task: str) -> dict[str, Path]:
    """A task's policies by name: those made for this, and the benchmark's own."""
    found = {path.name: path / task for path in sorted(source.out.glob("*"))}
    own = benchmark / "policies"
    for path in sorted(own.glob(f"{source.kind}-{task}-bc*/policy_*")):
        method = path.parent.name.removeprefix(f"{source.kind}-{task}-").split("-")[0]
        found[f"benchmark's {method}, {path.name.removeprefix('policy_')} updates"] = path
    for path in sorted(own.glob(f"{source.kind}-*-seed-*/{task}")):
        method = path.parent.name.removeprefix(f"{source.kind}-").split("-seed-")[0]
        found[f"benchmark's {method}"] = path
    return {name: path for name, path in found.items() if is_checkpoint(path)}


def play_all(
    source: Source, benchmark: Path, episodes: int, lines: Lines, pool: WorkerPool
) -> Iterator[str]:
    """Score what has no score yet in the simulator."""
    suite = EpisodeStore.open(source.data).suite
    seeds = list(range(1000, 1000 + episodes))
    for task in suite:
        for name, path in policies_of(source, benchmark, task.name).items():
            if (source.kind, task.name, name) not in lines.found:
                score = evaluated(SavedPolicies.at({task.name: path}), task, seeds, pool)
                lines.add(source.kind, task.name, name, score=score.normalized_score)
                yield f"{source.kind} {task.name} {name}: {score.normalized_score:.1f}"


def measure_all(source: Source, benchmark: Path, lines: Lines) -> Iterator[str]:
    """Value what has no value yet by the data."""
    store, model = EpisodeStore.open(source.data), load_world_model(source.world_model, _CPU)
    for task in store.suite:
        asked = policies_of(source, benchmark, task.name)
        left = {n: p for n, p in asked.items() if (source.kind, task.name, n) not in lines.found}
        estimators = _estimators(task, store, model) if left else {}
        for name, path in left.items():
            values = _measures(load_policy(path), task, store, model, estimators)
            lines.add(source.kind, task.name, name, **values)
            yield f"{source.kind} {task.name} {name}: {values}"


def _estimators(task: Task, store: EpisodeStore, model: WorldModel) -> dict[str, ScoreEstimator]:
    config, bad = ScoreEstimateConfig(), BadData()
    states = {"expected": model, "expected_of_observations": None}
    return {
        name: estimator_of(task, store, of, config, 0, bad, _CPU) for name, of in states.items()
    }


def _measures(
    policy: Policy,
    task: Task,
    store: EpisodeStore,
    model: WorldModel,
    estimators: dict[str, ScoreEstimator],
) -> dict[str, Any]:
    expected = estimators["expected"](policy)
    found = {"expected": expected.score, **asdict(expected)}
    del found["score"]
    found["expected_of_observations"] = estimators["expected_of_observations"](policy).score
    if policy.encoder is not None:
        imagine = Predictor(model, policy, None, task.episode_length)
        starts = [store.episode(task.name, i).obs[0] for i in range(_STARTS)]
        gained = sum(float(imagine(obs).rewards.sum()) for obs in starts) / _STARTS
        found["imagined"] = task.normalized_score(gained, gained)
    return found
