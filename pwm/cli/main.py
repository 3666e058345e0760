"""The command line: ``pwm <command> key=value ...``, with Hydra for everything configurable."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pwm.cli.commands import COMMANDS
from pwm.core.errors import PwmError, explain_fault
from pwm.core.processes import is_main_rank
from pwm.core.signals import Interrupted, Terminated, signals_unwind
from pwm.core.validation import nearest

if TYPE_CHECKING:
    from pwm.cli.overrides import Schema


_JOB_COMMANDS = ("collect", "extract", "evaluate")  # whose tasks -m makes jobs of


def config_directory() -> Path:
    """The directory of the YAML configs, in a checkout or in an installed package."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the process's exit code.

    0 on success, 1 for a mistake or fault that one sentence explains, 128 + signal after SIGINT,
    SIGTERM, SIGUSR1 or SIGUSR2.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with signals_unwind():
            _dispatch(words)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as in `pwm --help | head`
        _drop_unwritable()
        return 128 + signal.SIGPIPE
    except Interrupted as stop:
        print(f"pwm: {stop}", file=sys.stderr)
        return 128 + stop.signum
    except KeyboardInterrupt as stop:
        print(
            "pwm: stopped at once; what was saved is kept, and the same command goes on from "
            "there.",
            file=sys.stderr,
        )
        return 128 + (stop.signum if isinstance(stop, Terminated) else signal.SIGINT)
    except Exception as error:
        sentence = str(error) if isinstance(error, PwmError) else explain_fault(error)
        if debug or sentence is None:
            raise
        with suppress(OSError):  # it goes to a file on the full disk itself
            print(f"pwm: error: {sentence}", file=sys.stderr)
        _drop_unwritable()
        return 1
    return 0


def _drop_unwritable() -> None:
    """Forget output that cannot be written, which Python would try again at its end, and fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
    elif words[0] == "--version":
        from pwm import __version__

        print(f"pwm {__version__}")
    elif words[0] == "data":
        from pwm.cli.data_command import data_command

        data_command(words[1:])
    elif words[0] in COMMANDS:
        _run(words[0], words[1:])
    else:
        known = [*COMMANDS, "data"]
        hint = nearest(words[0], known) or "."
        raise PwmError(f"unknown command '{words[0]}'{hint} The commands are {', '.join(known)}.")


def _overview() -> str:
    lines = [
        "pwm: policies from multi-task world models by first-order gradients.",
        "",
        "usage: pwm <command> [key=value ...] [--help] [--debug]",
        "",
        *(f"  {name:<11}{command.summary}" for name, command in COMMANDS.items()),
        "  data       look at an episode store: info DIR, verify DIR; list tasks: tasks",
        "",
        "pwm <command> --help lists a command's settings; --cfg job prints them resolved.",
        "pwm collect, extract and evaluate make a job of each task with -m (docs/jobs.md).",
    ]
    return "\n".join(lines)


def _run(name: str, words: list[str]) -> None:
    command = COMMANDS[name]
    module = import_module(command.module)
    config_type, function = getattr(module, command.config), getattr(module, command.function)
    schema = _schema(name, config_type)
    if {"-h", "--help"} & set(words):
        print(_help(schema, function))
        return
    with _told_once():
        words = schema.current(words)
    if {"-m", "--multirun"} & set(words):
        from pwm.cli.multirun import require_runs_that_fit, run_jobs

        if name in _JOB_COMMANDS:
            run_jobs(schema, words, function, partial(with_hydra, schema))
            return
        with _told_once():
            schema.check(words)
            require_runs_that_fit(schema, words)
    with_hydra(schema, words, function)


def with_hydra(schema: Schema, words: list[str], function: Callable[[Any], Any]) -> None:
    """Compose a command's settings with overrides and call ``function`` with a typed config.

    Raises:
        PwmError: for overrides that do not fit the config.
    """
    with _told_once():
        schema.check(words)
        options, settings = schema.split(words)
        config = None if options else schema.composed(settings)
    if options:
        _with_options(schema, options, settings, function)
    else:
        function(config)


def _with_options(
    schema: Schema, options: list[str], settings: list[str], function: Callable[[Any], Any]
) -> None:
    """Have Hydra's own main do what the options say, such as ``--cfg`` and ``-m``."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    schema.presets.register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's own printer

    failures: list[Exception] = []

    here = os.getpid()

    def job(config: DictConfig) -> None:
        try:
            function(OmegaConf.to_object(config))
        except Exception as error:
            if os.getpid() != here:  # a launcher's process, which pickled this function
                raise
            failures.append(error)  # raised below, past Hydra's own report of a failed job

    run = hydra.main(version_base="1.3", config_path=None, config_name=schema.command)
    before, sys.argv = sys.argv, [f"pwm {schema.command}", *options, *settings]  # in Hydra's order
    try:
        run(job)()
        if failures:
            raise failures[0]
    except (HydraException, OmegaConfBaseException) as error:
        with _told_once():
            raise PwmError(schema.explain(error, settings)) from error
    finally:
        sys.argv = before


@contextmanager
def _told_once() -> Iterator[None]:
    """What torchrun's processes all find wrong inside, since it is in their words, one tells."""
    try:
        yield
    except PwmError:
        if not is_main_rank():
            sys.exit(1)
        raise


def _schema(name: str, config_type: type) -> Schema:
    from pwm.cli.overrides import Schema

    return Schema(name, config_type, config_directory(), COMMANDS[name].example)


def _help(schema: Schema, function: Callable[[Any], Any]) -> str:
    from omegaconf import OmegaConf

    resolved = OmegaConf.to_yaml(schema.plain([]))
    purpose = (inspect.getdoc(function) or "").split("\n\n")[0]
    presets = [f"{k}={'|'.join(v)}" for k, v in schema.presets.names.items()]
    parts = [
        f"usage: pwm {schema.command} key=value ...",
        purpose,
        f"example: {schema.example}",
        *(["presets: " + "  ".join(presets)] if presets else []),
        "settings and their defaults (??? must be given):",
        resolved,
        inspect.getdoc(schema.config_type) or "",
    ]
    return "\n\n".join(part.strip() for part in parts)
