"""Extracted policies, and planning on the same world model, on the same episodes: score and time.

    python scripts/compare_planner.py runs/quickstart                  # a run of `pwm quickstart`
    python scripts/compare_planner.py runs/quickstart --episodes 3 --tasks mw-reach,mw-drawer-close

Three methods act: the policies in RUN/policies; the planner with their actors and critics; and, if
RUN/world_model was pretrained with q_and_prior=true, the planner with its policy prior and Q
ensemble. The scores are those of `pwm evaluate`, kept in RUN/planner, so that the same command goes
on where it was stopped. The milliseconds of a decision are medians, of one environment alone and
of as many together as are evaluated side by side; the methods take turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.table import Table

from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.evaluation.agents import ActFunction, act_function
from pwm.evaluation.evaluate import EvaluateConfig, evaluate
from pwm.evaluation.mppi import Planner, PlannerConfig
from pwm.evaluation.mppi_agent import MPPIAgent
from pwm.evaluation.mppi_guides import ActorAndCritic, TDMPC2Guide, TerminalValue
from pwm.evaluation.planning import PLANNER, PLANNER_ACTOR
from pwm.evaluation.scores import EXTRACTED, METHOD_LABELS, Results
from pwm.models.policy_directory import find_policies
from pwm.models.world_model import load_world_model
from pwm.runtime.device import resolve_device

DECISIONS = 20


def scores(run: Path, tasks: str | None, episodes: int, device: str) -> Results:
    """What every method scores on the same episodes."""
    planners = [PLANNER_ACTOR]
    if load_world_model(run / "world_model").has_q:
        planners.append(PLANNER)
    config = EvaluateConfig(
        policy=str(run / "policies"),
        out=str(run / "planner"),
        checkpoint=str(run / "world_model"),
        tasks=tasks,
        episodes=episodes,
        baselines=planners,
        device=device,
    )
    return evaluate(config)


def controllers(run: Path, device: str, seeds: list[int]) -> tuple[Task, dict[str, ActFunction]]:
    """What every method acts by in episodes of these seeds, in the first task of a run."""
    model = load_world_model(run / "world_model", resolve_device(device))
    policies = find_policies(run / "policies")
    task, policy = next((policy.task, policy) for policy in policies.values())
    guides: dict[str, TerminalValue] = {
        PLANNER_ACTOR: ActorAndCritic.load(model, policies, run / "policies")
    }
    if model.has_q:
        guides[PLANNER] = TDMPC2Guide(model)
    acting: dict[str, ActFunction] = {EXTRACTED: partial(policy.act, normalized=True)}
    for name, guide in guides.items():
        planner = Planner(model, guide, PlannerConfig())
        planned = MPPIAgent(planner, model.suite, model.bins.device, {})
        acting[name] = act_function(planned, task, seeds)
    return task, acting


def milliseconds(run: Path, device: str, together: int) -> dict[str, float]:
    """Of a decision, by method: the median over decisions for so many environments at once."""
    task, acting = controllers(run, device, list(range(together)))
    rng = np.random.default_rng(0)
    spent: dict[str, list[float]] = {name: [] for name in acting}
    for _ in range(DECISIONS):
        obs = rng.normal(size=(together, task.obs_dim)).astype(np.float32)
        for name, act in acting.items():
            started = time.perf_counter()
            act(obs)
            spent[name].append(1000 * (time.perf_counter() - started) / together)
    return {name: median(times) for name, times in spent.items()}


def main() -> None:
    """Read the command line, run the episodes and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run directory of `pwm quickstart`")
    parser.add_argument("--tasks", help="a suite or task names joined by commas; all by default")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--device", default="auto", help="where the planners run")
    arguments = parser.parse_args()
    device = str(resolve_device(arguments.device))
    found = scores(arguments.run, arguments.tasks, arguments.episodes, device).methods
    sizes = sorted({1, min(EvaluateConfig.batch, arguments.episodes)})
    times = {size: milliseconds(arguments.run, device, size) for size in sizes}
    table = Table(title=f"{arguments.run}: {arguments.episodes} episodes a task")
    table.add_column("score")
    for name in found:
        table.add_column(METHOD_LABELS[name].replace(", ", "\n"), justify="right")
    for task in found[EXTRACTED].tasks:
        by_method = (score.tasks[task].normalized_score for score in found.values())
        table.add_row(task, *(f"{score:.1f}" for score in by_method))
    means = (f"{score.mean_normalized_score:.1f}" for score in found.values())
    table.add_row("mean", *means, end_section=True)
    for size, spent in times.items():
        table.add_row(f"ms a decision ({size} at once)", *(f"{spent[name]:.2f}" for name in found))
    console = Console()
    console.print(table)
    console.print(f"Times: {torch.get_num_threads()} threads, planners on {device}.")


if __name__ == "__main__":
    try:
        main()
    except PwmError as error:
        sys.exit(f"compare_planner: {error}")
