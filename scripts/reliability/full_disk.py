"""Let the disk run full under every command, give it room and the command again, and compare.

    python scripts/reliability/full_disk.py                       # 8 full disks per command
    python scripts/reliability/full_disk.py --tries 2 --cases pretrain,extract

Every command, at a small size, writes to a disk of its own (a tmpfs, which takes root or a system
that lets users mount in a namespace). In every second try the disk has room for a part of what the
command needs, in the others something else fills it at a random moment while the command works. The
command must end with exit code 1 and one sentence that names a file; what it had saved must be
readable, with its checksums, and nothing half-written may lie about. Then the disk has room again,
the same command is given again, and its files are compared byte for byte with those of a run on an
empty disk. Prints a Markdown table, and exits with 1 if anything was otherwise.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.context import ForkProcess
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kills import contents, saved_episodes, saved_jobs, saved_policies, saved_steps
from samples import ROOT, TASKS, make_results, make_samples, make_store, run
from small_disk import Disk

from pwm.cli.commands import COMMANDS
from pwm.cli.main import main
from pwm.core.files import unfinished_path
from pwm.core.suites import get_suite
from pwm.evaluation.scores import Results
from pwm.interop.tdmpc2_data import Chunk
from pwm.models.world_model import load_world_model
from pwm.reporting.templating import markdown_table
from pwm.runtime.checkpoint import is_checkpoint

PUBLISHED = ROOT / "tests" / "data" / "tdmpc2_mt30_tiny_old.pt"
_SENTENCE = re.compile(
    r"pwm: error: cannot write (\S+?):? .*free some space there, and give the same"
)


@dataclass(frozen=True)
class Case:
    """A command, with ``{out}`` where the path on the small disk goes.

    Attributes:
        label: for the table.
        words: the command line.
        saved: reads all that it has saved at a path; raises for damage.
        given: lies at the path before the command begins.
    """

    label: str
    words: tuple[str, ...]
    saved: Callable[[Path], object]
    given: Path | None = None


@dataclass(frozen=True)
class Undisturbed:
    """A run on an empty disk.

    Attributes:
        files: what it left.
        peak: bytes that it took at most.
        changes: how often what it takes was seen to change.
    """

    files: dict[str, str]
    peak: int
    changes: int


@dataclass
class Tally:
    """Full disks under a command, and how it went on after them."""

    full: int = 0
    identical: int = 0
    wrong: list[str] = field(default_factory=list)
    named: Counter[str] = field(default_factory=Counter)

    def row(self, label: str) -> list[str]:
        """A row of the table."""
        named = ", ".join(f"{name} {count}" for name, count in self.named.most_common())
        cells = (label, self.full, len(self.wrong), f"{self.identical} of {self.full}", named)
        return [str(cell) for cell in cells]


def cases(made: Mapping[str, Path]) -> list[Case]:
    """The commands, of about a second each, on what prepare() made."""
    suite = f"suite=[{','.join(TASKS)}]"
    tiny = (
        "device=cpu", "model=tiny", "model.encoder_dim=16", "model.mlp_dim=16",
        "model.latent_dim=16", "model.num_bins=21", "batch_size=4", "horizon.lengths=[2]",
    )  # fmt: skip
    pretrain = (f"data={made['data']}", *tiny, "steps=60", "log_every=1", "save_every=10")
    extract = (
        f"data={made['data']}", f"checkpoint={made['model']}", "device=cpu", "pool=32",
        "group_size=1", "log_every=1", "save_every=10", "learner.iterations=40",
        "learner.batch_size=4", "learner.horizon=2", "learner.networks.actor=[8]",
        "learner.networks.critic=[8]", "learner.critic.iterations=1",
    )  # fmt: skip
    evaluate = (
        f"policy={made['policies']}", f"data={made['data']}", "tasks=[pendulum-swingup]",
        "episodes=4", "batch=1", "workers=1", "baselines=[random,bc]", "cloning.updates=5",
    )  # fmt: skip
    to_files = (f"source={made['store']}", "to=tdmpc2", "steps=30", "files=6")
    out = "out={out}"
    return [
        Case(
            "collect",
            ("collect", "suite=pendulum-swingup", "episodes=120", "workers=1", out),
            saved_episodes,
        ),
        Case("convert", ("convert", f"source={made['files']}", suite, out), saved_episodes),
        Case("convert to=tdmpc2", ("convert", *to_files, out), _read_files),
        Case("pretrain", ("pretrain", *pretrain, out), saved_steps),
        Case("extract", ("extract", *extract, out), saved_policies),
        Case("evaluate", ("evaluate", *evaluate, out), saved_jobs),
        Case("report", ("report", "run={out}"), _read_report, made["run"]),
        Case("import", ("import", f"checkpoint={PUBLISHED}", "suite=mt30", out), _read_model),
        Case("export", ("export", f"checkpoint={made['imported']}", out), _read_nothing),
    ]


def _read_files(out: Path) -> None:
    for path in [*out.glob("*.pt"), *unfinished_path(out).glob("*.pt")]:
        for _ in Chunk(path, get_suite(TASKS)).file.verify():
            pass


def _read_report(out: Path) -> None:
    Results.load(out / "results.json")
    page = out / "report.html"
    assert not page.exists() or page.read_text().rstrip().endswith("</html>")


def _read_model(out: Path) -> None:
    if is_checkpoint(out):
        load_world_model(out)


def _read_nothing(out: Path) -> None:
    assert not out.exists(), "a part of a file has its name"


def begin(case: Case, out: Path, log: Path) -> ForkProcess:
    """The command as a process of its own; what it says goes to a file on another disk.

    It is forked off this one, which has imported everything and done nothing, to save imports.
    """
    words = [word.format(out=out) for word in case.words]
    process = multiprocessing.get_context("fork").Process(target=_run, args=(words, log))
    process.start()
    return process


def _run(words: list[str], log: Path) -> None:
    with open(log, "wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ["COLUMNS"] = "400"
    sys.exit(main(words))


def finish(process: ForkProcess) -> int | None:
    """Its exit code when it has ended."""
    process.join()
    return process.exitcode


def run_undisturbed(case: Case, disk: Disk, log: Path) -> Undisturbed:
    """The command on an empty disk."""
    with disk.mounted() as out:
        _give(case, out)
        before, peak, changes = disk.used, 0, 0
        process = begin(case, out, log)
        for used in disk.watch(process):
            peak, changes = max(peak, used), changes + 1
        if finish(process):
            sys.exit(f"pwm {case.label} ended with {process.exitcode}:\n{log.read_text()}")
        return Undisturbed(_left(out), max(peak, disk.used) - before, changes)


def try_full(
    case: Case, disk: Disk, whole: Undisturbed, at_once: bool, log: Path, rng: random.Random
) -> tuple[bool, str | None, str | None]:
    """One full disk.

    Args:
        case: the command.
        disk: what it writes to.
        whole: an undisturbed run of it.
        at_once: whether the room is short from the beginning; else it goes at a random moment.
        log: for what it says.
        rng: draws the room or the moment.

    Returns:
        Whether the room was short, the name of the file that could not be written, and what was
        wrong, if anything.
    """
    with disk.mounted() as out:
        _give(case, out)
        if at_once:
            disk.fill(room=int(rng.random() * whole.peak))
        process = begin(case, out, log)
        if not at_once:
            some = itertools.islice(disk.watch(process), rng.randrange(max(whole.changes, 1)))
            deque(some, maxlen=0)  # until then it works undisturbed
            disk.fill()
        code = finish(process)
        disk.make_room()
        if code == 0:
            return False, None, None
        named, wrong = _judged(case, out, code, log.read_text())
        if finish(begin(case, out, log)):
            wrong = f"it does not go on: {log.read_text()}"
        elif _left(out) != whole.files:
            differ = {name for name, _ in set(_left(out).items()) ^ set(whole.files.items())}
            wrong = f"other files: {', '.join(sorted(differ))}"
        return True, named, wrong


def _give(case: Case, out: Path) -> None:
    if case.given is not None:
        shutil.copytree(case.given, out)


def _judged(case: Case, out: Path, code: int, said: str) -> tuple[str | None, str | None]:
    """The file that a command named, and what is wrong with how it ended."""
    found = _SENTENCE.findall(said)
    named = kind_of(Path(found[0])) if found else None
    errors = said.count("pwm: error:")
    if code != 1 or len(found) != 1 or errors != 1 or "Traceback" in said:
        return named, f"it ended with {code} and said: {said}"
    if not Path(found[0]).is_relative_to(out.parent):
        return named, f"it named {found[0]}"
    if left := [path.name for path in out.parent.rglob("*") if path.name.endswith(".tmp")]:
        return named, f"it left {', '.join(left)}"
    try:
        case.saved(out)
    except Exception as error:  # whatever it is, it goes into the report
        return named, f"what it saved is damaged: {error!r}"
    return named, None


def kind_of(path: Path) -> str:
    """A file's name without what differs from run to run."""
    return re.sub(
        r"-[0-9a-f]{16}|\.[0-9]{19}\S*|(?<=chunk_)[0-9]+|(?<=step_)[0-9]+", "*", path.name
    )


def _left(out: Path) -> dict[str, str]:
    """What a command left: files, or the one file."""
    if out.is_file():
        return contents(out.parent)
    return contents(out)


def try_case(case: Case, disk: Disk, tries: int, log: Path, rng: random.Random) -> Tally:
    """Full disks under a command, in a few more tries than are wanted where some are not full."""
    whole, tally = run_undisturbed(case, disk, log), Tally()
    for number in range(4 * tries):
        if tally.full == tries:
            break
        full, named, wrong = try_full(case, disk, whole, number % 2 == 0, log, rng)
        tally.full += full
        tally.identical += full and wrong is None
        if named is not None:
            tally.named[named] += 1
        if wrong is not None:
            tally.wrong.append(wrong)
        print(f"{case.label}: {tally.full} of {number + 1} full, {named}", file=sys.stderr)
    return tally


def prepare(directory: Path) -> dict[str, Path]:
    """What the commands read, by name; made by another process, as begin() asks."""
    maker = multiprocessing.get_context("fork").Process(target=_make_inputs, args=(directory,))
    maker.start()
    if finish(maker):
        sys.exit("the commands' inputs could not be made.")
    return {path.name: path for path in directory.iterdir()}


def _make_inputs(directory: Path) -> None:
    make_samples(directory)
    make_store(directory / "store", episodes=400)
    run(
        f"convert source={directory / 'store'} to=tdmpc2 steps=30 files=6 out={directory / 'files'}"
    )
    run(f"import checkpoint={PUBLISHED} suite=mt30 out={directory / 'imported'}")
    make_results(directory / "run")


def try_everything() -> None:
    """Fill, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tries", type=int, default=8, help="full disks per command")
    parser.add_argument("--cases", help="labels of commands, with commas; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.inside:
        _enter_namespace()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        for name in ("disk", "inputs"):
            (work / name).mkdir()
        for command in COMMANDS.values():
            import_module(command.module)
        known = {case.label: case for case in cases(prepare(work / "inputs"))}
        labels = given.cases.split(",") if given.cases else list(known)
        disk, rng = Disk(work / "disk"), random.Random(given.seed)
        tallies = {
            label: try_case(known[label], disk, given.tries, work / "log.txt", rng)
            for label in labels
        }
    head = ["command", "full disks", "ended otherwise than said", "went on to the same files"]
    print(markdown_table([[*head, "named"], *(tallies[name].row(name) for name in tallies)]))
    for label, tally in tallies.items():
        for wrong in tally.wrong:
            print(f"{label}: {wrong}", file=sys.stderr)
    if any(tally.wrong or tally.full < given.tries for tally in tallies.values()):
        sys.exit(1)


def _enter_namespace() -> None:
    """Run this script again where it may mount; what it mounts there goes with it.

    Exits with a sentence where the system does not let it.
    """
    words = ["unshare", "--map-root-user", "--mount"]
    try:
        probe = [*words, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        allowed = subprocess.run(probe, capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        sys.exit("this system lets no user mount a disk; run it as root on Linux.")
    os.execvp(words[0], [*words, sys.executable, *sys.argv, "--inside"])


if __name__ == "__main__":
    try_everything()
