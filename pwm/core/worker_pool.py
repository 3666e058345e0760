"""Watched worker processes: one that dies, hangs or fails is replaced and its work done again.

The caller hands out jobs and takes results; a worker does one job at a time, signals that it is
alive by a counter in shared memory, and may ask the caller something in the middle of a job.
"""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Self

from pwm.core.errors import PwmError, SimulatorError
from pwm.core.processes import end_with_parent, fresh_interpreters

Answerer = Callable[[Sequence[tuple["Job", Any]]], Sequence[Any]]
"""Answers the questions of several jobs that wait at once."""

_DONE, _QUESTION, _MISTAKE, _FAILED, _DIED = "done", "question", "mistake", "failed", "died"
_SECONDS_BETWEEN_CHECKS = 0.2
_SECONDS_TO_START = 300.0
_SECONDS_TO_CLOSE = 10.0
MOST_WORKERS = 4096
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True, eq=False)
class Job:
    """A call for a worker, that gives the same result however often it is made.

    Attributes:
        function: of an importable module, called with a :class:`Caller` and the arguments.
        arguments: what pickles.
        parts: what it works through, such as "task 'mw-push' from seed 3", for messages.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    parts: tuple[str, ...]


class Caller:
    """A worker's line to the process that it works for."""

    def __init__(self, connection: Connection, pulse: Any) -> None:
        self._connection, self._pulse = connection, pulse
        self._jobs: deque[Job] = deque()

    def at(self, part: int) -> None:
        """Signals that the job goes on, and with which of its parts; jobs call it all the time."""
        self._pulse[0] += 1
        self._pulse[1] = part

    def ask(self, question: Any) -> Any:
        """The caller's answer to something that pickles."""
        self._send(_QUESTION, question)
        while isinstance(message := self._receive(), Job):
            self._jobs.append(message)
        return message

    def serve(self) -> None:
        """Does jobs until the caller has no more, or one fails."""
        kind = _DONE
        while kind == _DONE:
            try:
                job = self._jobs.popleft() if self._jobs else self._receive()
            except EOFError:
                return
            self._pulse[1] = 0
            kind, content = self._outcome(job)
            self._send(kind, content)

    def _outcome(self, job: Job) -> tuple[str, Any]:
        try:
            return _DONE, job.function(self, *job.arguments)
        except SimulatorError as fault:
            return _FAILED, str(fault)
        except PwmError as mistake:
            return _MISTAKE, str(mistake)
        except Exception as fault:
            return _FAILED, f"{type(fault).__name__}: {fault}"

    def _receive(self) -> Any:
        return pickle.loads(self._connection.recv_bytes())  # noqa: S301 - the caller's own pipe

    def _send(self, kind: str, content: Any) -> None:
        self._connection.send_bytes(pickle.dumps((kind, content)))


def _work(connection: Connection, pulse: Any) -> None:
    end_with_parent()
    with suppress(BrokenPipeError, ConnectionResetError):  # where the caller has ended
        Caller(connection, pulse).serve()


class _Worker:
    """A process and the jobs that were sent to it, of which it does the first."""

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self._start()

    def _start(self) -> None:
        self._pulse = _CONTEXT.RawArray("Q", 2)
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_work, args=(theirs, self._pulse), daemon=True)
        with fresh_interpreters():
            self.process.start()
        theirs.close()
        self.look()

    @property
    def part(self) -> str:
        """What it works on."""
        job = self.jobs[0]
        return job.parts[min(self._pulse[1], len(job.parts) - 1)]

    def hand(self, job: Job) -> None:
        if not self.jobs:
            self.look()
        self.jobs.append(job)
        self.send(job)

    def send(self, message: Any) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it is missed when it should answer
            self.connection.send_bytes(pickle.dumps(message))

    def receive(self) -> tuple[str, Any]:
        """The message that it has sent, or that it has died."""
        try:
            kind, content = pickle.loads(self.connection.recv_bytes())  # noqa: S301 - own pipe
        except (EOFError, OSError):
            self.process.join(_SECONDS_TO_CLOSE)
            return _DIED, f"its process ended with exit code {self.process.exitcode}"
        self.look()
        return kind, content

    def look(self) -> None:
        """Notes that it is alive."""
        self._seen, self._since = self._pulse[0], time.monotonic()

    def hangs(self, timeout: float) -> bool:
        """Whether its counter has stood still for longer than the time-out."""
        if self._pulse[0] != self._seen:
            self.look()
        if not self._seen:  # it imports simulators, and makes the first
            timeout = max(timeout, _SECONDS_TO_START)
        return time.monotonic() - self._since > timeout

    def replace(self) -> None:
        """Starts another process, which begins with the same job."""
        self.kill()
        self._start()
        for job in self.jobs:
            self.send(job)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()


class WorkerPool:
    """Runs jobs in spawned processes with one thread each, and again where a process fails.

    Workers end when the caller does, even if it is killed, which alone gets signals to stop.

    Args:
        workers: processes; each is started when there is a job for it.
        timeout: seconds without a sign of life after which a worker counts as hung; until its
            first one a worker has at least 300.
        max_faults: faults of one job after which it is given up.
        ahead: jobs that a worker has at a time, so that it need not wait for the next.
        notify: called with a sentence at every fault.

    Attributes:
        workers: how many.
        faults: how many there were, by kind: died, hung or failed.
    """

    def __init__(
        self,
        workers: int,
        timeout: float,
        max_faults: int,
        ahead: int = 1,
        notify: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.workers, self._timeout, self._ahead = workers, timeout, ahead
        self._max_faults, self._notify = max_faults, notify
        self.faults: Counter[str] = Counter()
        self._faults_of: Counter[Job] = Counter()
        self._processes: list[_Worker] = []

    def run(
        self,
        next_job: Callable[[int], Job | None],
        answer: Answerer | None = None,
        together: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[Job, Any]]:
        """Jobs with their results, in the order in which they end.

        Args:
            next_job: gives a job for the worker of an index, or None if there is none for now; the
                run is over when none is to be had and all are done.
            answer: answers the questions of jobs; all that wait at once are passed together.
            together: whether questions wait until every worker that has a job asks one, so that
                they are answered in an order that does not depend on who was faster.
            meanwhile: called when answers are out, to do something while the workers go on.

        Raises:
            PwmError: for a job that has failed too often (the sentence names its part), or that
                raised a PwmError other than a SimulatorError, which would come again.
        """
        asking: dict[_Worker, Any] = {}
        while self._hand_out(next_job):
            for worker in self._ready(asking):
                kind, content = worker.receive()
                if kind == _DONE:
                    yield worker.jobs.popleft(), content
                elif kind == _QUESTION:
                    asking[worker] = content
                elif kind == _MISTAKE:
                    raise PwmError(f"{worker.part}: {content}")
                else:
                    asking.pop(worker, None)
                    self._replace(worker, kind, content)
            busy = sum(bool(worker.jobs) for worker in self._processes)
            if asking and answer is not None and (not together or len(asking) == busy):
                in_order = [worker for worker in self._processes if worker in asking]
                told = in_order if together else list(asking)
                answers = answer([(worker.jobs[0], asking[worker]) for worker in told])
                for worker, content in zip(told, answers, strict=True):
                    worker.look()
                    worker.send(content)
                asking.clear()
                meanwhile()

    def _hand_out(self, next_job: Callable[[int], Job | None]) -> bool:
        """Gives every worker something to do; returns whether any has."""
        for depth in range(self._ahead):
            for index in range(self.workers):
                idle = index >= len(self._processes) or len(self._processes[index].jobs) <= depth
                job = next_job(index) if idle else None
                if job is None:
                    continue
                while index >= len(self._processes):
                    self._processes.append(_Worker())
                self._processes[index].hand(job)
        return any(worker.jobs for worker in self._processes)

    def _ready(self, waiting: Container[_Worker]) -> list[_Worker]:
        """Workers that have sent something; those that hang are replaced meanwhile.

        Those ``waiting`` for an answer do nothing, and are not taken to hang.
        """
        busy = {worker.connection: worker for worker in self._processes if worker.jobs}
        ready = [busy.pop(c) for c in wait(list(busy), _SECONDS_BETWEEN_CHECKS)]  # type: ignore[call-overload]
        for worker in busy.values():
            if worker not in waiting and worker.hangs(self._timeout):
                self._replace(worker, "hung", f"it gave no sign of life for {self._timeout:g} s")
        return ready

    def _replace(self, worker: _Worker, kind: str, reason: str) -> None:
        job, part = worker.jobs[0], worker.part
        self.faults[kind] += 1
        self._faults_of[job] += 1
        times = self._faults_of[job]
        what = f"a worker {kind} at {part} ({reason})"
        if times >= self._max_faults:
            remedy = "mend what failed" if kind == _FAILED else "try fewer workers"
            short = "" if kind == _FAILED else " if memory is short"
            raise PwmError(
                f"{what}, fault {times} of max_faults={self._max_faults} there; what is finished "
                f"is kept, and the same command goes on from there: {remedy}{short}, or leave the "
                "task out."
            )
        self._notify(f"{what}; it is replaced, and runs that again (fault {times} there).")
        worker.replace()

    def report(self) -> str | None:
        """A sentence that counts the faults, if there were any."""
        if not self.faults:
            return None
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        return f"Workers replaced: {self.faults.total()} ({kinds}); what they did was done again."

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        idle = [worker for worker in self._processes if not worker.jobs]
        for worker in idle:
            worker.connection.close()
        for worker in idle:
            worker.process.join(_SECONDS_TO_CLOSE)
        for worker in self._processes:
            worker.kill()
