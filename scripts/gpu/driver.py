"""Runs checks as processes of their own, each with a time limit, and keeps what they found.

A check says facts as it finds them, as lines of JSON in a file (``gpu.facts.say``). The driver
reads these files while the checks run, so a check that is too slow, or a driver that is stopped,
loses nothing that was said.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TICK = 0.02  # seconds between two looks at what runs


@dataclass(frozen=True)
class Check:
    """One process.

    Attributes:
        name: what it checks.
        most: seconds after which it is stopped.
        least: with fewer seconds left of all, it is not started.
        alone: whether nothing else may run meanwhile, since it measures speed.
    """

    name: str
    most: float
    least: float = 10.0
    alone: bool = False


@dataclass
class _Running:
    check: Check
    process: subprocess.Popen[bytes]
    started: float
    limit: float
    facts: Path
    log: Path
    said: int = 0  # bytes of the facts that were read


@dataclass
class Driver:
    """Runs checks in their order; those that may, side by side.

    Attributes:
        out: gets results.json, always up to date, and log.txt with what the checks printed.
        command: the words that start a check.
        jobs: how many checks run side by side at most.
        budget: seconds for all.
        environment: of the checks.
        tell: is given a line at a time of what happens.
    """

    out: Path
    command: Callable[[Check], Sequence[str]]
    jobs: int = 1
    budget: float = 540.0
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    tell: Callable[[str], object] = print
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, checks: Sequence[Check]) -> int:
        """Run them all; 0 if every one ended well, 1 if not."""
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "log.txt").write_bytes(b"")
        began, waiting = time.monotonic(), list(checks)
        running: list[_Running] = []
        with tempfile.TemporaryDirectory(prefix="checks-") as directory:
            try:
                while waiting or running:
                    left = self.budget - (time.monotonic() - began)
                    running = [one for one in running if not self._ended(one)]
                    while (check := self._next(waiting, running)) is not None:
                        waiting.remove(check)
                        if left < check.least:
                            self._note(check.name, status="skipped", left_s=round(left, 1))
                        else:
                            running.append(self._start(check, Path(directory), left))
                    time.sleep(_TICK)
            finally:  # a signal too
                for one in running:
                    self._end(one, "stopped")
                for check in waiting:
                    self._note(check.name, status="skipped")
        return int(any(result["status"] != "ok" for result in self.results.values()))

    def _next(self, waiting: Sequence[Check], running: Sequence[_Running]) -> Check | None:
        """The first that may start now."""
        if len(running) >= self.jobs or any(one.check.alone for one in running):
            return None
        return next((c for c in waiting if not (c.alone and running)), None)

    def _start(self, check: Check, directory: Path, left: float) -> _Running:
        name = f"{len(self.results):03d}"
        facts, log = directory / f"{name}.facts", directory / f"{name}.log"
        facts.touch()
        self._note(check.name, status="running")
        with log.open("wb") as stream:
            process = subprocess.Popen(
                list(self.command(check)),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**self.environment, "CHECK_FACTS": str(facts)},
                start_new_session=True,  # so that what it starts ends with it
            )
        limit = min(check.most, left)
        return _Running(check, process, time.monotonic(), limit, facts, log)

    def _ended(self, one: _Running) -> bool:
        """Whether it has ended, or took too long and was stopped."""
        code = one.process.poll()
        if code is None and time.monotonic() - one.started < one.limit:
            self._read(one)
            return False
        self._end(one, "too slow" if code is None else "ok" if code == 0 else "failed")
        return True

    def _end(self, one: _Running, status: str) -> None:
        with suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)  # workers that outlive it, too
        code = one.process.wait()
        self._read(one)
        seconds = round(time.monotonic() - one.started, 1)
        false = [name for name, fact in self._facts(one).items() if _is_false(fact)]
        if false and status == "ok":
            status = "failed"
        self._note(one.check.name, status=status, code=code, seconds=seconds, false=false)
        with (self.out / "log.txt").open("ab") as log:
            log.write(f"\n===== {one.check.name}: {status}, code {code}\n".encode())
            log.write(one.log.read_bytes())
        self.tell(f"{one.check.name}: {status} after {seconds} s" + _listed(false))

    def _facts(self, one: _Running) -> dict[str, Any]:
        return self.results[one.check.name].setdefault("facts", {})

    def _read(self, one: _Running) -> None:
        """Take in the whole lines that were said since the last time."""
        with one.facts.open("rb") as stream:
            stream.seek(one.said)
            whole = stream.read().rpartition(b"\n")[0]
        if not whole:
            return
        one.said += len(whole) + 1
        for line in whole.splitlines():
            new = json.loads(line)
            self._facts(one).update(new)
            for name, fact in new.items():
                self.tell(f"{one.check.name}: {name}: {_brief(fact)}")
        self._write()

    def _note(self, name: str, **facts: Any) -> None:
        self.results.setdefault(name, {}).update(facts)
        self._write()

    def _write(self) -> None:
        new = self.out / "results.json.new"
        new.write_text(json.dumps(self.results, indent=1))
        os.replace(new, self.out / "results.json")


def _is_false(fact: Any) -> bool:
    return isinstance(fact, dict) and ("error" in fact or fact.get("holds") is False)


def _listed(false: Sequence[str]) -> str:
    return f"; not so: {', '.join(false)}" if false else ""


def _brief(fact: Any) -> str:
    text = json.dumps(fact)
    return text if len(text) <= 200 else text[:200] + " ..."
