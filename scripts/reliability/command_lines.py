"""Trying command lines with a mistake, in this process or their own, and judging the answers."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from samples import OWN_TASK, ROOT, make_samples

from pwm.cli.commands import COMMANDS
from pwm.cli.main import main

# Of processor time, which other work on the machine does not change.
SECONDS = 3.0  # of a mistake in this process, where imports are done
PROCESS_SECONDS = 20.0  # of a process, with the imports of torch and the simulators


@dataclass(frozen=True)
class Outcome:
    """What a command line came to: exit code, what it printed, the processor's seconds."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def message(self) -> str:
        """The one sentence."""
        return self.err.removeprefix("pwm: error: ").strip()

    def fault(self, words: str, allowed_seconds: float) -> str | None:
        """What is wrong with it as an answer to a mistake, or None."""
        if self.code != 1:
            return f"exit code {self.code}"
        if not self.err.startswith("pwm: error: ") or self.err.count("\n") != 1 or self.out:
            return "not one sentence"
        if words not in self.err:
            return f"does not say '{words}'"
        if self.seconds > allowed_seconds:
            return f"took {self.seconds:.1f} s"
        return None


def in_this_process(words: list[str]) -> Outcome:
    """Run a command line here; a traceback becomes an exit code that no command has."""
    out, err = io.StringIO(), io.StringIO()
    begun = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except Exception:
            code = -1
    return Outcome(code, out.getvalue(), err.getvalue(), time.process_time() - begun)


def in_its_own_process(words: list[str]) -> Outcome:
    """Run a command line as a user does."""
    begun = _seconds_of_children()
    done = subprocess.run(
        [sys.executable, "-m", "pwm.cli", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr, _seconds_of_children() - begun)


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make_inputs(directory: Path) -> dict[str, Path]:
    """What the command lines name: genuine inputs, and two task files with a mistake."""
    inputs = make_samples(directory)
    inputs["broken"] = directory / "broken.yaml"
    inputs["broken"].write_text(OWN_TASK.replace("obs_dim: 3", "obs_dim: three"))
    inputs["unknown_env"] = directory / "unknown_env.yaml"
    inputs["unknown_env"].write_text(OWN_TASK.replace("Pendulum-v1", "NoSuchEnv-v0"))
    return inputs


def filled(text: str, inputs: Mapping[str, Path]) -> str:
    """The text with the paths of the inputs that it names in braces."""
    for name, path in inputs.items():
        text = text.replace(f"{{{name}}}", str(path))
    return text


def import_commands() -> None:
    """Import what the commands do, so that a mistake's time is its own."""
    for command in COMMANDS.values():
        import_module(command.module)


def try_all(
    mistakes: Mapping[str, list[tuple[str, str]]], inputs: Mapping[str, Path], sample: int
) -> list[str]:
    """Try every mistake, and every ``sample``-th in a process of its own; print the table.

    Args:
        mistakes: by topic, command lines with words that their messages must contain.
        inputs: paths by the names that stand in braces in both.
        sample: every how many-th is also tried as a process.

    Returns:
        One line for each that was not refused as it should be.
    """
    faults, count, processes = [], 0, []
    import_commands()
    before = _content(inputs)
    for topic, rows in mistakes.items():
        print(f"| **{topic}** | |\n| --- | --- |" if not count else f"| **{topic}** | |")
        for line, words in rows:
            with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
                arguments, wanted = shlex.split(filled(line, inputs)), filled(words, inputs)
                outcome = in_this_process(arguments)
                found = [outcome.fault(wanted, SECONDS)]
                if count % sample == 0:
                    processes.append(in_its_own_process(arguments))
                    found.append(processes[-1].fault(wanted, PROCESS_SECONDS))
                if any(Path(empty).iterdir()):
                    found.append("something was written")
            faults += [f"pwm {line}: {fault}" for fault in found if fault]
            print(f"| `pwm {line}` | {_for_a_reader(outcome.message, inputs)} |")
            count += 1
    if _content(inputs) != before:
        faults.append("the inputs were changed")
    print(f"\n{count} mistakes, {count - len(faults)} refused as they should be; ", end="")
    print(f"{len(processes)} also as processes of their own, none slower than ", end="")
    print(f"{max(outcome.seconds for outcome in processes):.1f} s of processor time.")
    return faults


def _content(inputs: Mapping[str, Path]) -> dict[Path, float]:
    files = (file for path in inputs.values() for file in (path, *path.rglob("*")))
    return {file: file.stat().st_mtime for file in files if file.name != ".lock"}


def _for_a_reader(message: str, inputs: Mapping[str, Path]) -> str:
    for name, path in inputs.items():
        message = message.replace(str(path), f"{{{name}}}")
    return message.replace("|", "\\|")
