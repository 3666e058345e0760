"""Make workers die, hang and fail at random moments, and compare with undisturbed runs.

    python scripts/reliability/workers.py                 # 60 faults, some minutes
    python scripts/reliability/workers.py --faults 10 --commands collect

`pwm collect` and `pwm evaluate` run in real processes. Their workers are killed (SIGKILL), stopped
(SIGSTOP, so that they hang), or their simulation is made unstable, so that MuJoCo's warning becomes
an error. What the command counts as faults, and goes on from, is counted here. When it has ended
the store, or the results, are compared byte for byte with those of an undisturbed run. Prints a
Markdown table, and exits with 1 if a command failed or anything differed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil
import torch
import yaml
from kills import contents
from unstable_env import unstable_task

from pwm.core.suites import Task, get_task
from pwm.models.actor_critic import ActorCriticSize, Actors
from pwm.models.policy import Policy
from pwm.reporting.templating import markdown_table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
_KINDS = ("die", "die", "die", "hang", "fail")
_COMPARED = {"collect": None, "evaluate": ("results.json", "results.csv")}
_BEGINNING = (  # what a worker does before its first step
    "import pwm.models.actor_critic, pwm.core.worker_pool; from pwm.envs import make_env; "
    "make_env('mw-drawer-close').reset(seed=0)"
)
_STEP_SECONDS = 10.0


@dataclass
class Tally:
    """Faults of a command's workers, and how it went on after them.

    Attributes:
        faults: that the command survived, by kind.
        rounds: runs of the command.
        identical: those of them that left the same bytes.
    """

    faults: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    identical: int = 0

    def row(self, command: str) -> list[str]:
        """A row of the table."""
        kinds = (self.faults[kind] for kind in ("died", "hung", "failed"))
        cells = [command, *kinds, self.faults.total(), f"{self.identical} of {self.rounds}"]
        return [str(cell) for cell in cells]


def commands(work: Path, token: Path) -> dict[str, list[str]]:
    """The commands, without out=, of some seconds each; writes what they read."""
    tasks = [get_task("reacher-easy"), get_task("mw-drawer-close"), unstable_task(token)]
    for i, task in enumerate(tasks):
        _untrained(task, i).save(work / "policies" / task.name)
    own = tasks[-1]
    (work / "unstable.yaml").write_text(
        yaml.safe_dump(
            {
                **{key: getattr(own, key) for key in ("name", "env_id", "obs_dim", "action_dim")},
                "episode_length": own.episode_length,
                "env_kwargs": {"token": str(token)},
                "score": {"min": own.score_min, "max": own.score_max},
            }
        )
    )
    watched = ["workers=2", f"worker_timeout={_STEP_SECONDS}", "max_faults=1000"]
    names = ",".join([*(task.name for task in tasks[:-1]), str(work / "unstable.yaml")])
    return {
        "collect": ["collect", f"suite=[{names}]", "episodes=60", *watched],
        "evaluate": ["evaluate", f"policy={work / 'policies'}", "episodes=30", *watched],
    }


def _untrained(task: Task, seed: int) -> Policy:
    torch.manual_seed(seed)
    size = ActorCriticSize([32, 32], [])
    actors = Actors(task.obs_dim, torch.ones(1, task.action_dim), size)
    mean, scale = torch.zeros(task.obs_dim), torch.ones(task.obs_dim)
    return Policy.from_observation_actor(task, mean, scale, actors, 0, size)


def start(words: Sequence[str], out: Path) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    paths = os.pathsep.join([str(ROOT), str(HERE)])
    return subprocess.Popen(
        [sys.executable, "-m", "pwm.cli", *words, f"out={out}"],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "COLUMNS": "400"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], words: Sequence[str]) -> Counter[str]:
    """The faults that a command says it survived."""
    said = process.communicate()[1]
    if process.returncode:
        sys.exit(f"pwm {words[0]} ended with {process.returncode}:\n{said}")
    report = re.search(r"Workers replaced: \d+ \((.*?)\)", said)
    found = re.findall(r"(\d+) (\w+)", report[1]) if report else []
    return Counter({kind: int(count) for count, kind in found})


def seconds_to_begin() -> float:
    """Processor time in which a worker imports and makes its first environment."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", _BEGINNING], env={**os.environ, **paths}, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def disturb(
    process: subprocess.Popen[str], token: Path, rng: random.Random, pause: float, begun: float
) -> None:
    """Harm the workers of a process, that have begun, at random moments until it ends."""
    while process.poll() is None:
        time.sleep(rng.uniform(0.2, 2 * pause))
        kind = rng.choice(_KINDS)
        if kind == "fail":
            token.touch()
        elif workers := _workers(process.pid, begun):
            rng.choice(workers).send_signal(signal.SIGKILL if kind == "die" else signal.SIGSTOP)


def _workers(pid: int, begun: float) -> list[psutil.Process]:
    """Worker processes that had more processor time than ``begun``, and are not stopped."""
    found = []
    try:
        for child in psutil.Process(pid).children():
            times = child.cpu_times()
            if "spawn_main" in " ".join(child.cmdline()) and times.user + times.system > begun:
                found.append(child)
        return [child for child in found if child.status() != psutil.STATUS_STOPPED]
    except psutil.NoSuchProcess:
        return []


def files(command: str, out: Path) -> dict[str, str]:
    """The SHA-256 of what a command leaves, apart from records of time."""
    names = _COMPARED[command]
    found = contents(out)
    return found if names is None else {name: found[name] for name in names}


def fault_rounds(
    words: Sequence[str], work: Path, token: Path, faults: int, pause: float, rng: random.Random
) -> Tally:
    """Runs of a command until it has survived ``faults`` faults."""
    command, tally, begun = words[0], Tally(), seconds_to_begin()
    finish(start(words, work / command / "undisturbed"), words)
    expected = files(command, work / command / "undisturbed")
    while tally.faults.total() < faults:
        out = work / command / f"round_{tally.rounds}"
        process = start(words, out)
        disturb(process, token, rng, pause, begun)
        tally.faults += finish(process, words)
        token.unlink(missing_ok=True)
        tally.rounds += 1
        tally.identical += files(command, out) == expected
        print(f"{command}: {dict(tally.faults)} in {tally.rounds} rounds", file=sys.stderr)
    return tally


def main() -> None:
    """Disturb, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--faults", type=int, default=60, help="in all; shared by the commands")
    parser.add_argument("--commands", default="collect,evaluate")
    parser.add_argument("--pause", type=float, default=2.0, help="mean seconds between faults")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    names = given.commands.split(",")
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="pwm-workers-") as directory:
        work, token = Path(directory), Path(directory) / "unstable"
        known = commands(work, token)
        share = -(-given.faults // len(names))
        tallies = {
            name: fault_rounds(known[name], work, token, share, given.pause, rng) for name in names
        }
    head = ["command", "workers that died", "hung", "failed", "survived"]
    head.append("runs with identical files")
    print(markdown_table([head, *(tally.row(name) for name, tally in tallies.items())]))
    if any(tally.identical < tally.rounds for tally in tallies.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
