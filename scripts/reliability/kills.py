"""Kill commands at random moments, give them again, and compare with undisturbed runs.

    python scripts/reliability/kills.py                      # 125 kills, about half an hour
    python scripts/reliability/kills.py --kills 8 --cases pretrain,extract

Every kill is SIGKILL to a real `pwm` process. In most the moment is drawn from the time after it
took the lock on its directory, when it reads or writes; in one of five from its start on. After
each, all that is saved is read back with its checksums, and must be at least what was there before.
Then the same command is given again, until one is left to end; that makes a round, and its files
are compared byte for byte with those of the undisturbed run. Prints a Markdown table, and exits
with 1 if anything was lost or differed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pwm.core.files import unfinished_path
from pwm.core.layout import MANIFEST_NAME
from pwm.core.locks import LOCK_NAME
from pwm.data.inspection import verify
from pwm.data.store import EpisodeStore
from pwm.evaluation.evaluate import OUTCOMES
from pwm.evaluation.scores import DECISION_TIMES
from pwm.reporting.templating import markdown_table
from pwm.runtime.checkpoint import is_checkpoint, load_checkpoint
from pwm.runtime.training_checkpoints import list_steps

ROOT = Path(__file__).resolve().parents[2]
_OUT = "out"  # of every command, relative to its round's directory, so that records are equal
TASKS = ("pendulum-swingup", "reacher-easy")
_LEFT_OUT = (  # they hold times or process ids
    "run.json", LOCK_NAME, "tensorboard", OUTCOMES, DECISION_TIMES, "throughput.json",
)  # fmt: skip
_POLICY = 10**9  # counts for more than any step


@dataclass(frozen=True)
class Case:
    """A command to kill.

    Attributes:
        name: the command's.
        words: its settings, apart from out=.
        holds: the directories that it locks while it works, relative to that of the round.
        saved: how much of it is safe on disk; raises PwmError or AssertionError for damage.
    """

    name: str
    words: tuple[str, ...]
    holds: tuple[str, ...]
    saved: Callable[[Path], int]

    def start(self, directory: Path) -> subprocess.Popen[bytes]:
        """The command as a process of its own in a round's directory."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with open(directory / "log.txt", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "pwm.cli", self.name, *self.words, f"out={_OUT}"],
                cwd=directory,
                env=environment,
                stdout=log,
                stderr=log,
            )

    def works(self, directory: Path, process: subprocess.Popen[bytes]) -> bool:
        """Whether the process has taken its lock."""
        for name in self.holds:
            try:
                note = json.loads((directory / name / LOCK_NAME).read_bytes())
            except (OSError, ValueError):
                continue
            if note.get("pid") == process.pid:
                return True
        return False


@dataclass
class Tally:
    """Kills of a command, and how it went on after them."""

    kills: int = 0
    rounds: int = 0
    identical: int = 0
    lost: list[str] = field(default_factory=list)

    def row(self, name: str) -> list[str]:
        """A row of the table."""
        identical = f"{self.identical} of {self.rounds}"
        return [name, str(self.kills), str(len(self.lost)), identical]


def saved_episodes(out: Path) -> int:
    """Episodes in a store, or in one that is being made; every byte is compared with its sum."""
    for path in (out, unfinished_path(out)):
        if (path / MANIFEST_NAME).exists():
            store = EpisodeStore.open(path)
            assert not (faults := list(verify(store))), faults
            return sum(store.count(task) for task in store.suite.names)
    return 0


def saved_steps(out: Path, kind: str = "world_model") -> int:
    """The newest checkpoint's step; every checkpoint is read."""
    paths = list_steps(out / "checkpoints")
    return max((load_checkpoint(path, kind).meta["step"] for path in paths), default=0)


def saved_policies(out: Path) -> int:
    """Policies and, below them, the newest checkpoint's step; all of them are read."""
    policies = [path for path in (out / task for task in TASKS) if is_checkpoint(path)]
    for path in policies:
        load_checkpoint(path, "policy")
    steps = [saved_steps(path, "extraction") for path in out.glob("groups/*")]
    return _POLICY * len(policies) + max(steps, default=0)


def saved_jobs(out: Path) -> int:
    """Jobs of an evaluation that were played, one line each."""
    log = out / OUTCOMES
    return log.read_bytes().count(b"\n") if log.exists() else 0


def cases(inputs: Path) -> list[Case]:
    """The commands, with sizes at which each works for some seconds on what prepare() made."""
    data, world_model = inputs / "data", inputs / "world_model"
    suite = f"suite=[{','.join(TASKS)}]"
    tiny = (
        "model=tiny", "model.encoder_dim=32", "model.mlp_dim=32", "model.latent_dim=32",
        "model.num_bins=21",
    )  # fmt: skip
    networks = ("learner.networks.actor=[16]", "learner.networks.critic=[16]")
    pretrain = (
        f"data={data}", "device=cpu", "steps=600", "batch_size=16", "horizon.lengths=[2,4]",
        "horizon.starts=[0.0,0.5]", "q_and_prior=true", "log_every=1", "save_every=40",
        "diagnose_every=200", *tiny,
    )  # fmt: skip
    extract = (
        f"data={data}", f"checkpoint={world_model}", "device=cpu", "pool=256", "group_size=1",
        "log_every=1", "save_every=25", "learner.iterations=250", "learner.batch_size=16",
        "learner.horizon=4", "learner.critic.iterations=1", "learner.bc.weight=0.1", *networks,
    )  # fmt: skip
    evaluate = (
        f"policy={inputs / 'policies'}", "baselines=[random]", "episodes=20", "batch=2",
        "workers=2",
    )  # fmt: skip
    both = (_OUT, f"{_OUT}.unfinished")
    return [
        Case("collect", (suite, "episodes=120", "workers=2"), (_OUT,), saved_episodes),
        Case("convert", (f"source={inputs / 'files'}", suite), both, saved_episodes),
        Case("pretrain", pretrain, (_OUT,), saved_steps),
        Case("extract", extract, (_OUT,), saved_policies),
        Case("evaluate", evaluate, (_OUT,), saved_jobs),
    ]


def contents(out: Path) -> dict[str, str]:
    """The SHA-256 of every file that a command leaves, apart from records of time."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not set(path.relative_to(out).parts) & set(_LEFT_OUT)
    }


def run_undisturbed(case: Case, directory: Path) -> tuple[dict[str, str], float, float]:
    """The files of an undisturbed run, and the seconds before and after it took its lock."""
    directory.mkdir(parents=True)
    began = time.monotonic()
    process = case.start(directory)
    while process.poll() is None and not case.works(directory, process):
        time.sleep(0.005)
    locked = time.monotonic()
    _require_success(case, process.wait(), directory)
    return contents(directory / _OUT), locked - began, time.monotonic() - locked


def _require_success(case: Case, code: int, directory: Path) -> None:
    if code:
        sys.exit(f"pwm {case.name} ended with {code}:\n{(directory / 'log.txt').read_text()}")


def kill_rounds(case: Case, directory: Path, kills: int, rng: random.Random) -> Tally:
    """Rounds of a command until it was killed ``kills`` times."""
    expected, opening, working = run_undisturbed(case, directory / "undisturbed")
    tally = Tally()
    while tally.kills < kills:
        work = directory / f"round_{tally.rounds}"
        work.mkdir()
        before = 0
        while tally.kills < kills and _killed(case, work, opening, working, rng):
            tally.kills += 1
            now = _saved(case, work / _OUT, tally)
            if now < before:
                tally.lost.append(f"{work}: {before} before kill {tally.kills}, {now} after")
            before = now
        _require_success(case, case.start(work).wait(), work)  # or finds that it has ended
        tally.rounds += 1
        different = {name for name, _ in set(contents(work / _OUT).items()) ^ set(expected.items())}
        tally.identical += not different
        if different:
            print(f"{work}: {', '.join(sorted(different))} differ", file=sys.stderr)
        print(f"{case.name}: {tally.kills} kills, {tally.rounds} rounds", file=sys.stderr)
    return tally


def _killed(case: Case, work: Path, opening: float, working: float, rng: random.Random) -> bool:
    """Start a command and kill it at a random moment; False if it ended before."""
    process = case.start(work)
    if rng.random() < 0.2:
        delay = rng.uniform(0, opening)
    else:
        delay = rng.uniform(0, working / 2)
        while process.poll() is None and not case.works(work, process):
            time.sleep(0.005)
    try:
        _require_success(case, process.wait(delay), work)
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


def _saved(case: Case, out: Path, tally: Tally) -> int:
    try:
        return case.saved(out)
    except Exception as error:  # whatever it is, it goes into the report
        tally.lost.append(f"{out} after kill {tally.kills}: {error!r}")
        return 0


def prepare(known: dict[str, Case], inputs: Path) -> None:
    """What the commands read: a store, published files of it, a world model and its policies."""
    from pwm.cli.main import main as pwm

    for line in (
        ["collect", *known["collect"].words, f"out={inputs / 'data'}"],
        ["convert", f"source={inputs / 'data'}", "to=tdmpc2", "files=6", f"out={inputs / 'files'}"],
        ["pretrain", *known["pretrain"].words, "steps=50", f"out={inputs / 'world_model'}"],
        ["extract", *known["extract"].words, f"out={inputs / 'policies'}"],
    ):
        if pwm(line):
            sys.exit(1)


def main() -> None:
    """Kill, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=125, help="in all; shared among the cases")
    parser.add_argument("--cases", default="collect,convert,pretrain,extract,evaluate")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, help="keep what was made here; else it is deleted")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = (given.out or Path(scratch)).resolve()
        known = {case.name: case for case in cases(out / "inputs")}
        chosen = [known[name] for name in given.cases.split(",")]
        prepare(known, out / "inputs")
        rng = random.Random(given.seed)
        share = -(-given.kills // len(chosen))
        tallies = {case.name: kill_rounds(case, out / case.name, share, rng) for case in chosen}
    for fault in (fault for tally in tallies.values() for fault in tally.lost):
        print(f"lost: {fault}", file=sys.stderr)
    head = ["command", "SIGKILLs", "with loss or damage", "rounds with identical files"]
    print(markdown_table([head, *(tally.row(name) for name, tally in tallies.items())]))
    if any(tally.lost or tally.identical < tally.rounds for tally in tallies.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
