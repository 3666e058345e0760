"""Compare offline methods on the same data and the same episodes of evaluation.

``python scripts/offline_benchmark.py out=runs/offline baselines_python=ENV/bin/python`` makes the
data, learns and evaluates every policy of ``plan=scripts/offline/full.yaml``, and prints tables. It
goes on where it stopped. ``smoke=true`` is short for the small plan. Parts: ``tasks=walker-run``,
``kinds=replay,medium``, ``methods=bc_best,td3bc,small_data`` and ``seeds=0,1``. A method is bc or
bc_best (cloning), td3bc, iql or rebrac (d3rlpy, in a Python environment of its own that
``baselines_python`` names), or one of ours: a name in the plan, or a preset of ``configs/extract``.
``show=true`` prints the tables of what is there; ``workers=2`` is how many programs run at once;
``tag=WORD`` does results of ours again after a change of code.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from offline import commands, data, table
from offline.evaluation import evaluated
from offline.methods import Learned, MethodJob, Setting, jobs_of
from offline.plan import BASELINES, CLONES, D3RLPY, Plan, require_kinds
from offline.records import Line, Records

from pwm.core.errors import PwmError
from pwm.core.processes import available_cores
from pwm.core.signals import Terminated, signals_unwind
from pwm.core.worker_pool import WorkerPool

_HERE = Path(__file__).resolve().parent / "offline"
KNOWN = {
    "out": "runs/offline", "plan": "", "smoke": "false", "tasks": "", "kinds": "", "methods": "",
    "seeds": "", "workers": "0", "baselines_python": "", "tag": "", "show": "false",
    "digests": str(_HERE / "digests.json"),
}  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """What a command line asks for.

    Attributes:
        plan, out, digests: the benchmark, where it goes, and the record of data.
        tasks, kinds, methods, seeds: parts of it.
        workers: programs at once.
        baselines_python, tag: see :class:`offline.methods.Setting`.
        show: only the tables.
        notes: sentences for the reader.
    """

    plan: Plan
    out: Path
    digests: Path
    tasks: list[str]
    kinds: list[str]
    methods: list[str]
    seeds: list[int]
    workers: int
    baselines_python: str
    tag: str
    show: bool
    notes: list[str] = field(default_factory=list)


def chosen(words: Sequence[str]) -> Chosen:
    """Read a command line; raises PwmError for mistakes."""
    given = dict(word.partition("=")[::2] for word in words)
    if unknown := set(given) - set(KNOWN):
        raise PwmError(f"unknown setting {', '.join(unknown)}; there are {', '.join(KNOWN)}.")
    said = KNOWN | given
    smoke = _switch(said, "smoke")
    plan = Plan.read(Path(said["plan"] or _HERE / ("smoke.yaml" if smoke else "full.yaml")))
    tasks = _list(said["tasks"]) or list(plan.tasks)
    if missing := set(tasks) - set(plan.tasks):
        raise PwmError(f"tasks={','.join(missing)}: the plan has {', '.join(plan.tasks)}.")
    kinds = _list(said["kinds"]) or plan.kinds
    require_kinds(kinds)
    methods, notes = _methods(plan, said)
    seeds = [_number("seeds", text) for text in _list(said["seeds"])]
    return Chosen(
        plan,
        Path(said["out"]),
        Path(said["digests"]),
        tasks,
        kinds,
        methods,
        seeds or list(range(plan.seeds)),
        _number("workers", said["workers"]) or available_cores(),
        said["baselines_python"],
        said["tag"],
        _switch(said, "show"),
        notes,
    )


def _methods(plan: Plan, said: dict[str, str]) -> tuple[list[str], list[str]]:
    """The methods, and what the reader should know of them."""
    asked = _list(said["methods"])
    if said["baselines_python"] or _switch(said, "show"):
        return asked or [*BASELINES, *plan.own], []
    how = (
        "give baselines_python=PATH, the Python of an environment that has d3rlpy "
        "(scripts/offline/requirements.txt)"
    )
    if lacking := [method for method in asked if method in D3RLPY]:
        raise PwmError(f"{', '.join(lacking)} need d3rlpy; {how}.")
    if asked:
        return asked, []
    return [*CLONES, *plan.own], [f"{', '.join(D3RLPY)} are left out; for them {how}."]


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.strip("[]").split(",") if part.strip()]


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise PwmError(f"{name}={text} must be whole numbers of at least 0.")
    return int(text)


def _switch(said: dict[str, str], name: str) -> bool:
    if said[name] not in ("true", "false"):
        raise PwmError(f"{name}={said[name]} must be true or false.")
    return said[name] == "true"


class Benchmark:
    """A benchmark's run; ``say`` gets a line for each thing that is done."""

    def __init__(self, asked: Chosen, say: Callable[[str], object]) -> None:
        self.asked, self._say = asked, say
        self.store = data.BenchmarkData(asked.plan, asked.out)
        self.setting = Setting(asked.plan, self.store, asked.out, asked.baselines_python, asked.tag)
        self.records = Records(asked.out / "scores.jsonl")
        self.faults: list[str] = []

    @property
    def _tasks_with_data(self) -> list[str]:
        """Those asked for; all where a world model is pretrained on them together."""
        ours = set(self.asked.methods) - set(BASELINES)
        return list(self.asked.plan.tasks) if ours else self.asked.tasks

    def run(self) -> None:
        """Do all that is lacking; raises PwmError in the end if something failed."""
        self.asked.out.mkdir(parents=True, exist_ok=True)
        self._make_data()
        jobs = list(self.lacking())
        self._say(f"{len(jobs)} jobs of learning to do")
        with WorkerPool(self.asked.workers, 120.0, 5) as pool:
            for job, learned in self._side_by_side({job: job.learn for job in jobs}):
                for policy in learned:
                    self._record(job, policy, pool)
        if self.faults:
            raise PwmError(
                f"{len(self.faults)} jobs failed, which the same command does again: "
                + " ".join(self.faults)
            )

    def _make_data(self) -> None:
        pairs = [(kind, task) for kind in self.asked.kinds for task in self._tasks_with_data]
        parts = dict.fromkeys(
            (task, training) for kind, task in pairs for training in self.store.needed(kind, task)
        )
        work = {part: partial(self.store.collect, *part) for part in parts}
        for (task, training), _ in self._side_by_side(work):
            self._say(f"collected {task}, {training}")
        if self.faults:
            raise PwmError(f"data could not be collected: {' '.join(self.faults)}")
        for kind, task in pairs:
            found = data.digest(self.store.take(kind, task), task)
            if sentence := data.tell_other(kind, task, self.asked.plan, found, self.asked.digests):
                self._say(sentence)

    def lacking(self) -> Iterator[MethodJob]:
        """The jobs that there is no result of, those of a seed before those of the next."""
        asked = self.asked
        for seed in asked.seeds:
            for method in asked.methods:
                for kind in asked.kinds:
                    for job in jobs_of(self.setting, kind, asked.tasks, method, seed):
                        tasks = [t for t in job.tasks if not self._has(job, t)]
                        yield from jobs_of(self.setting, kind, tasks, method, seed) if tasks else ()

    def _has(self, job: MethodJob, task: str) -> bool:
        return self.records.has((job.kind, task, job.method, job.seed), job.made_of)

    def _side_by_side(self, work: dict[Any, Callable[[], Any]]) -> Iterator[tuple[Any, Any]]:
        """Calls with their results as they end; the fault of one does not end the others."""
        with ThreadPoolExecutor(self.asked.workers) as executor:
            futures: dict[Future[Any], Any] = {executor.submit(f): x for x, f in work.items()}
            try:
                for future in as_completed(futures):
                    try:
                        result = future.result()
                    except PwmError as fault:
                        self.faults.append(str(fault))
                        self._say(f"failed: {fault}")
                        continue
                    yield futures[future], result
            finally:
                if not all(future.done() for future in futures):
                    executor.shutdown(wait=False, cancel_futures=True)
                    commands.stop()

    def _record(self, job: MethodJob, learned: Learned, pool: WorkerPool) -> None:
        plan = self.asked.plan
        task, seeds = plan.suite[learned.task], plan.evaluation_seeds
        scores = {n: evaluated(p, task, seeds, pool) for n, p in learned.policies.items()}
        last = max(scores)
        line = Line(
            kind=job.kind,
            task=learned.task,
            method=job.method,
            seed=job.seed,
            made_of=job.made_of,
            score=scores[last].normalized_score,
            episode_return=scores[last].episode_return,
            updates=last,
            seconds=learned.seconds,
            curve=[(n, score.normalized_score) for n, score in scores.items()],
            **data.scores(self.store.path(job.kind, learned.task), learned.task),
            **learned.notes,
        )
        self.records.add(line)
        self._say(f"{job.kind} {line.task} {line.method} seed {line.seed}: {line.score:.1f}")

    def write_tables(self) -> str:
        """The tables of what there is, also in ``table.md``, and the picture ``table.png``."""
        asked = self.asked
        lines = [
            line
            for line in self.records.lines(asked.kinds, asked.tasks)
            if line.seed in asked.seeds and line.method in asked.methods
        ]
        text = table.markdown(lines)
        (asked.out / "table.md").write_text(text + "\n")
        if table.comparisons(lines):
            table.picture(lines, asked.out / "table.png")
        return text


def main(words: Sequence[str]) -> None:
    """Run the benchmark and print its tables."""
    try:
        with signals_unwind():
            _run(chosen(words), partial(print, flush=True))
    except PwmError as error:
        sys.exit(f"offline_benchmark: {error}")
    except KeyboardInterrupt as stop:
        print("offline_benchmark: stopped; the same command goes on from there.", file=sys.stderr)
        sys.exit(128 + (stop.signum if isinstance(stop, Terminated) else signal.SIGINT))


def _run(asked: Chosen, say: Callable[[str], object]) -> None:
    for note in asked.notes:
        say(note)
    benchmark = Benchmark(asked, say)
    if asked.show and not asked.out.is_dir():
        raise PwmError(f"out={asked.out} is not there, and show=true only shows what is there.")
    try:
        if not asked.show:
            benchmark.run()
    finally:
        say(benchmark.write_tables())


if __name__ == "__main__":
    main(sys.argv[1:])
