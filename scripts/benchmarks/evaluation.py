"""Evaluating policies in two worker processes, beside one environment at a time.

The plain code makes a task's environment, loads its policy and plays one episode after another.
Ours plays the same episodes by ``run_episodes``, from starting the workers to the last outcome.
Untrained policies of the 5M world model act; what they cost does not depend on what they learned.

By default every eighth task of MT80 is played, ten episodes each, of full length: the proportion of
loading to playing is that of the whole suite, and starting the workers weighs eight times as much.

    python scripts/benchmark.py only=evaluation
    python scripts/benchmarks/evaluation.py --every 1 --repeats 1      # all of MT80
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (1, 2)]

from benchmarks.rows import Row, interleaved
from omegaconf import OmegaConf

from pwm.cli.main import config_directory
from pwm.core.suites import SUITES, Task
from pwm.core.worker_pool import WorkerPool
from pwm.envs import make_env
from pwm.evaluation.agents import SavedPolicies
from pwm.evaluation.episode_log import EpisodeLog
from pwm.evaluation.episode_queue import EvalRun, run_episodes
from pwm.evaluation.evaluate import EvaluateConfig
from pwm.models.actor_critic import ActorCriticSize, Actors, action_masks
from pwm.models.policy import Policy, load_policy
from pwm.models.world_model import ModelSize, WorldModel

_SUITE, _MODEL, _EPISODES, _WORKERS, _EVERY = SUITES["mt80"], "5M", 10, 2, 8


def rows(device: str, repeats: int, every: int = _EVERY) -> Iterator[Row]:
    """Measure on the CPU, where policies act whatever the device is.

    Args:
        device: ignored.
        repeats: runs of each kind, in turns.
        every: which of MT80's tasks, in their order.

    Yields:
        Evaluation by two workers beside one environment at a time; the floor is the time of the
        plain code's simulator steps on two cores.
    """
    tasks = _SUITE.tasks[every // 2 :: every]
    seeds = list(range(1000, 1000 + _EPISODES))
    simulating: list[float] = []
    played: list[EvalRun] = []
    with tempfile.TemporaryDirectory(prefix="pwm-evaluation-") as directory:
        paths = _save_policies(tasks, Path(directory))
        plain_ms, ours_ms = interleaved(
            [
                lambda: simulating.append(one_at_a_time(tasks, paths, seeds)),
                lambda: played.append(in_workers(tasks, paths, seeds)),
            ],
            repeats,
            warmup=0,
        )
    rates = played[-1].throughput(_WORKERS)
    yield Row(
        f"evaluation of {len(tasks)} tasks of MT80 x {_EPISODES} episodes in {_WORKERS} workers, "
        "against one environment at a time",
        plain_ms,
        ours_ms,
        1e3 * float(np.median(simulating)) / _WORKERS,
        required=1.7,
        note=f"{rates['steps_per_second']:,.0f} decision steps/s; the simulators alone "
        f"{rates['simulator_steps_per_second']:,.0f}",
    )


def _save_policies(tasks: Sequence[Task], directory: Path) -> dict[str, Path]:
    torch.manual_seed(0)
    size = ModelSize(**OmegaConf.load(config_directory() / "model" / f"{_MODEL}.yaml"))
    networks = ActorCriticSize([400, 200, 100], [400, 200])
    model = WorldModel(size, _SUITE, q_and_prior=False)
    actors = Actors(size.latent_dim, action_masks(tasks, _SUITE.action_dim), networks)
    for i, task in enumerate(tasks):
        policy = Policy.from_latent_actor(model, task, actors, i, networks)
        policy.save(directory / task.name)
    return {task.name: directory / task.name for task in tasks}


def one_at_a_time(tasks: Sequence[Task], policies: dict[str, Path], seeds: Sequence[int]) -> float:
    """The plain way; returns the seconds that the simulators took."""
    simulating = 0.0
    for task in tasks:
        env, policy = make_env(task), load_policy(policies[task.name])
        for seed in seeds:
            obs, _ = env.reset(seed=seed)
            over = False
            while not over:
                action = policy.act(obs, normalized=True)
                started = time.perf_counter()
                obs, _, terminated, truncated, _ = env.step(action)
                simulating += time.perf_counter() - started
                over = terminated or truncated
        env.close()
    return simulating


def in_workers(tasks: Sequence[Task], policies: dict[str, Path], seeds: Sequence[int]) -> EvalRun:
    """As ``pwm evaluate`` does it."""
    methods = {"extracted": SavedPolicies.at(policies)}
    with WorkerPool(_WORKERS, timeout=120, max_faults=1) as pool:
        return run_episodes(methods, tasks, seeds, EvaluateConfig.batch, pool, EpisodeLog())


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=_EVERY, help="every how many-th task of MT80")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    for row in rows("cpu", arguments.repeats, arguments.every):
        print(f"{row.what}: {row.plain_ms / 1e3:.1f} s and {row.ours_ms / 1e3:.1f} s,", end=" ")
        print(f"{row.ratio:.2f} x; {row.note}.")


if __name__ == "__main__":
    main()
