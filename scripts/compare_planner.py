"""Extracted policies, and planning on the same world model, on the same episodes: score and time.

    python scripts/compare_planner.py runs/quickstart                  # a run of `pwm quickstart`
    python scripts/compare_planner.py runs/quickstart --episodes 3 --tasks mw-reach,mw-drawer-close

Three methods act: the policies in RUN/policies; the planner with their actors and critics; and, if
RUN/world_model was pretrained with q_and_prior=true, the planner with its policy prior and Q
ensemble. Of each it prints the score of every task, and the milliseconds of a decision: together,
where environments that act at once share the time of a batch, and alone, for one environment.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.table import Table

from pwm.devices import resolve_device
from pwm.errors import PwmError
from pwm.evaluate import Outcomes, extracted_guide, find_policies, run_episodes
from pwm.methods import Method, Separate, Timed
from pwm.planner import Guide, PlannedEpisodes, Planner, PlannerConfig, PriorAndQ
from pwm.scores import METHOD_LABELS
from pwm.suites import Task, get_suite
from pwm.world_model import load_world_model


def methods_of(
    run: Path, tasks: list[str] | None, device: str
) -> tuple[dict[str, Method], list[Task]]:
    """What a run can act with, and the tasks that it has policies for."""
    model = load_world_model(run / "world_model", resolve_device(device))
    policies = find_policies(run / "policies", tasks)
    methods: dict[str, Method] = {
        "extracted": Separate({name: policy.act for name, policy in policies.items()})
    }
    guides: dict[str, Guide] = {"planner+actor": extracted_guide(model, policies, run / "policies")}
    if model.has_q:
        guides["planner"] = PriorAndQ(model)
    for name, guide in guides.items():
        planner = Planner(model, guide, PlannerConfig())
        methods[name] = PlannedEpisodes(planner, model.suite, model.bins.device)
    return methods, [policy.task for policy in policies.values()]


def alone(method: Method, task: Task, decisions: int = 30) -> float:
    """Median milliseconds of a decision for one environment."""
    obs = np.random.default_rng(0).normal(size=(decisions, 1, task.obs_dim)).astype(np.float32)
    times = []
    method.begin([task], [0])
    for rows in obs:
        started = time.perf_counter()
        method.act({task.name: rows})
        times.append(time.perf_counter() - started)
    return 1000 * median(times)


def main() -> None:
    """Read the command line, run the episodes and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run directory of `pwm quickstart`")
    parser.add_argument("--tasks", help="a suite or task names joined by commas; all by default")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1000, help="of the first episode")
    parser.add_argument("--device", default="auto", help="where the planners run")
    parser.add_argument("--max-envs", type=int, default=64)
    arguments = parser.parse_args()
    arguments.device = str(resolve_device(arguments.device))
    names = None if arguments.tasks is None else list(get_suite(arguments.tasks).names)
    methods, tasks = methods_of(arguments.run, names, arguments.device)
    timed = {name: Timed(method) for name, method in methods.items()}
    seeds = [arguments.seed + i for i in range(arguments.episodes)]
    outcomes = run_episodes(timed, tasks, seeds, max_envs=arguments.max_envs)
    columns = {name: _column(method, outcomes[name], tasks) for name, method in timed.items()}
    table = Table(title=f"{arguments.run}: {arguments.episodes} episodes a task")
    table.add_column("score")
    for name in columns:
        table.add_column(METHOD_LABELS[name].replace(", ", "\n"), justify="right")
    labels = [*(task.name for task in tasks), "mean", "ms a decision, together", "ms, alone"]
    for i, label in enumerate(labels):
        table.add_row(
            label, *(column[i] for column in columns.values()), end_section=i == len(tasks)
        )
    console = Console()
    console.print(table)
    console.print(f"{torch.get_num_threads()} threads, planners on {arguments.device}.")


def _column(method: Timed, outcomes: dict[str, Outcomes], tasks: list[Task]) -> list[str]:
    scores = [outcomes[task.name].score(task).normalized_score for task in tasks]
    times = method.milliseconds, alone(method, tasks[0])
    return [
        *(f"{score:.1f}" for score in [*scores, np.mean(scores)]),
        *(f"{ms:.2f}" for ms in times),
    ]


if __name__ == "__main__":
    try:
        main()
    except PwmError as error:
        sys.exit(f"compare_planner: {error}")
