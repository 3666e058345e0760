"""How fast the environments step, beside the bare simulators given the same actions.

    python scripts/benchmark_envs.py                      # the tasks the speed limits are set for
    python scripts/benchmark_envs.py --tasks all          # all 80, with steps a second
    python scripts/benchmark_envs.py --tasks mw-push,cup-spin --repeats 20

The bare simulator takes the same control steps with the same actions and computes its observation
at each, as its own step does. The two run in turns, an episode each, from the same seed; resets are
not timed. Times are CPU time of the one thread both run in, so that other processes disturb them
little; slower-by is the median over the repeats of the ratio of the two.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import envs
from envs import dmcontrol, metaworld
from pwm.core.suites import SUITES, Task, get_suite

_LIMITED = {"pendulum-swingup": 0.30, "walker-run": 0.10}
_DEFAULT = "pendulum-swingup,walker-run,mw-reach,mw-push,mw-drawer-close,mw-assembly"
_SEED = 3


def limit(task: Task) -> float | None:
    """How much slower than the bare simulator the task may be, if there is a limit."""
    return 0.10 if task.domain == "metaworld" else _LIMITED.get(task.name)


def bare_simulator(task: Task) -> tuple[Callable[[], object], Callable[[np.ndarray], object]]:
    """The reset and the control step of the simulator's own environment."""
    if task.domain == "dmcontrol":
        dm_env = dmcontrol.load(task.name, _SEED)
        return dm_env.reset, dm_env.step
    env = metaworld.load(task.name)

    def reset() -> None:
        env.seed(_SEED)
        env.reset()

    return reset, env.step


def measure(task: Task, repeats: int) -> tuple[float, float, float]:
    """Seconds a decision step of the bare simulator and of ours, and the median of the ratio."""
    actions = np.random.default_rng(0).uniform(-1, 1, (task.episode_length, task.action_dim))
    steps = list(actions.astype(np.float32))
    reset, control_step = bare_simulator(task)
    env = envs.make_env(task.name)
    control_steps = range(task.action_repeat)
    bare, ours = [], []
    for _ in range(repeats + 1):
        reset()
        start = time.thread_time()
        for action in steps:
            for _ in control_steps:
                control_step(action)
        bare.append(time.thread_time() - start)

        env.reset(seed=_SEED)
        start = time.thread_time()
        for action in steps:
            env.step(action)
        ours.append(time.thread_time() - start)
    env.close()
    # The first round warms the caches.
    ratios = [mine / theirs for mine, theirs in zip(ours[1:], bare[1:], strict=True)]
    return median(bare[1:]) / len(steps), median(ours[1:]) / len(steps), median(ratios)


def main() -> int:
    """Prints the table; returns 1 if a task is slower than its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=_DEFAULT, help="comma-separated tasks, or all")
    parser.add_argument("--repeats", type=int, default=15, help="timed episodes of each")
    args = parser.parse_args()
    suite = SUITES["mt80"] if args.tasks == "all" else get_suite(args.tasks)

    print(f"{'task':30}{'bare':>10}{'ours':>10}{'ours':>12}{'slower by':>11}{'limit':>7}")
    print(f"{'':30}{'us/step':>10}{'us/step':>10}{'steps/s':>12}")
    over = 0
    for task in suite:
        bare, ours, ratio = measure(task, args.repeats)
        most = limit(task)
        over += most is not None and ratio - 1 > most
        print(
            f"{task.name:30}{bare * 1e6:10.1f}{ours * 1e6:10.1f}{1 / ours:12,.0f}"
            f"{(ratio - 1) * 100:10.1f}%{'' if most is None else f'{most:7.0%}'}",
            flush=True,
        )
    print(f"A step is a decision step: {suite.tasks[0].action_repeat} control steps.")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
