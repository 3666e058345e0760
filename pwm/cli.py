"""The command line: ``pwm <command> key=value ...``, with Hydra for everything configurable."""

from __future__ import annotations

import difflib
import inspect
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pwm.errors import PwmError
from pwm.interrupt import Interrupted, Terminated, sigterm_unwinds


@dataclass(frozen=True)
class Command:
    """A command: a typed config and the function that takes it.

    Attributes:
        module: where both live; imported only when the command is used.
        function, config: their names.
        summary: one line for the overview.
        example: what to type.
    """

    module: str
    function: str
    config: str
    summary: str
    example: str


COMMANDS = {
    "quickstart": Command(
        "pwm.quickstart",
        "quickstart",
        "QuickstartConfig",
        "the whole pipeline on five tasks, in minutes on a laptop",
        "pwm quickstart out=runs/quickstart",
    ),
    "collect": Command(
        "pwm.collect",
        "collect",
        "CollectConfig",
        "run behaviours in the simulators and store the episodes",
        "pwm collect suite=mt30 episodes=200 out=runs/mt30/data",
    ),
    "convert": Command(
        "pwm.convert",
        "convert",
        "ConvertConfig",
        "published data files into an episode store, or a store into such files",
        "pwm convert source=downloads/mt80 suite=mt80 tasks=[walker-run] out=data/walker-run",
    ),
    "import": Command(
        "pwm.import_checkpoint",
        "import_checkpoint",
        "ImportConfig",
        "a published TD-MPC2 or PWM world model into one that pwm opens",
        "pwm import checkpoint=downloads/mt80-48M.pt suite=mt80 out=models/mt80-48M",
    ),
    "export": Command(
        "pwm.export_checkpoint",
        "export_checkpoint",
        "ExportConfig",
        "a world model into a checkpoint file for TD-MPC2's own code",
        "pwm export checkpoint=runs/mt30/world_model out=mt30.pt",
    ),
    "pretrain": Command(
        "pwm.pretrain",
        "pretrain",
        "PretrainConfig",
        "train one world model on all tasks of a store",
        "pwm pretrain data=runs/mt30/data model=5M out=runs/mt30/world_model",
    ),
    "extract": Command(
        "pwm.extract",
        "extract",
        "ExtractConfig",
        "learn a policy per task by first-order gradients through the world model",
        "pwm extract tasks=[walker-run] checkpoint=runs/mt30/world_model data=runs/mt30/data "
        "out=runs/mt30/policies",
    ),
    "evaluate": Command(
        "pwm.evaluate",
        "evaluate",
        "EvaluateConfig",
        "score policies and baselines in the simulators",
        "pwm evaluate policy=runs/mt30/policies episodes=10 out=runs/mt30",
    ),
    "report": Command(
        "pwm.report_command",
        "report_command",
        "ReportConfig",
        "make one HTML page of a run",
        "pwm report run=runs/mt30",
    ),
}


def config_directory() -> Path:
    """The directory of the YAML configs, in a checkout or in an installed package."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "configs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the process's exit code.

    0 on success, 1 for a mistake or fault that one sentence explains, 128 + signal after SIGINT
    or SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with sigterm_unwinds():
            _dispatch(words)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as in `pwm --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
        return 143 if isinstance(stop, Terminated) else 130
    except PwmError as error:
        if debug:
            raise
        print(f"pwm: error: {error}", file=sys.stderr)
        return 1
    return 0


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
    elif words[0] == "--version":
        from pwm import __version__

        print(f"pwm {__version__}")
    elif words[0] == "data":
        from pwm.data_command import data_command

        data_command(words[1:])
    elif words[0] in COMMANDS:
        _run(words[0], words[1:])
    else:
        known = [*COMMANDS, "data"]
        close = difflib.get_close_matches(words[0], known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "."
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
    ]
    return "\n".join(lines)


_HYDRA_OPTIONS = ("--cfg", "-c", "--resolve", "--multirun", "-m")


def _run(name: str, overrides: list[str]) -> None:
    command = COMMANDS[name]
    module = import_module(command.module)
    config_type, function = getattr(module, command.config), getattr(module, command.function)
    if {"-h", "--help"} & set(overrides):
        print(_help(name, config_type, function))
        return
    for word in overrides:
        if word.startswith("-") and word not in _HYDRA_OPTIONS:
            raise PwmError(
                f"unknown option '{word}'; settings are given as key=value, without dashes: "
                f"`pwm {name} --help` lists them."
            )
    with_hydra(name, config_type, overrides, function)


def with_hydra(
    name: str, config_type: type, overrides: list[str], function: Callable[[Any], Any]
) -> None:
    """Compose ``configs/<name>.yaml`` with overrides and call ``function`` with a typed config.

    Raises:
        PwmError: for overrides that do not fit the config.
    """
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    ConfigStore.instance().store(name=f"{name}_schema", node=config_type)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's own printer

    failures: list[BaseException] = []

    def job(config: DictConfig) -> None:
        try:
            function(OmegaConf.to_object(config))
        except (PwmError, Interrupted, OmegaConfBaseException) as error:
            failures.append(error)  # raised below, past Hydra's own report of a failed job

    run = hydra.main(version_base="1.3", config_path=str(config_directory()), config_name=name)
    before, sys.argv = sys.argv, [f"pwm {name}", *overrides]
    try:
        run(job)()
        if failures:
            raise failures[0]
    except (HydraException, OmegaConfBaseException) as error:
        raise PwmError(_explain(error, name, config_type)) from error
    finally:
        sys.argv = before


def _explain(error: Exception, name: str, config_type: type) -> str:
    """One sentence for a config error, with the nearest key where a key is unknown."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import (
        ConfigAttributeError,
        ConfigKeyError,
        MissingMandatoryValue,
        OmegaConfBaseException,
    )

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__ or cause.__context__
    key = str(getattr(cause, "full_key", None) or getattr(cause, "key", None) or "")
    if isinstance(cause, MissingMandatoryValue):
        example = COMMANDS[name].example if name in COMMANDS else ""
        return f"{name} needs {key}=...; for example: {example}"
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        close = difflib.get_close_matches(key, _all_keys(config_type), n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}=? " if close else ""
        return f"{name} has no setting '{key}'; {hint}`pwm {name} --help` lists them."
    if isinstance(error, MissingConfigException) and error.options:
        given = str(error.missing_cfg_file).replace("/", "=")
        return f"there is no preset {given}; choose from {', '.join(error.options)}."
    if isinstance(error, OverrideParseException):
        return (
            f"cannot read '{error.override}': settings are given as key=value, lists as "
            f"key=[a,b]. `pwm {name} --help` lists them."
        )
    first = str(cause or error).strip().split("\n")[0].rstrip(".")
    where = f" for {key}" if key else ""
    return f"bad value{where}: {first}. `pwm {name} --help` lists the settings."


def _all_keys(config_type: type) -> list[str]:
    from omegaconf import DictConfig, OmegaConf

    def walk(node: DictConfig, prefix: str) -> list[str]:
        keys = []
        for key in map(str, node):
            keys.append(f"{prefix}{key}")
            if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
                keys += walk(node[key], f"{prefix}{key}.")
        return keys

    return walk(OmegaConf.structured(config_type), "")


def _help(name: str, config_type: type, function: Callable[[Any], Any]) -> str:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    ConfigStore.instance().store(name=f"{name}_schema", node=config_type)
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        resolved = OmegaConf.to_yaml(compose(name))
    purpose = (inspect.getdoc(function) or "").split("\n\n")[0]
    groups = sorted(
        f"{path.name}={'|'.join(sorted(p.stem for p in path.glob('*.yaml')))}"
        for path in config_directory().iterdir()
        if path.is_dir() and path.name in resolved_groups(name)
    )
    parts = [
        f"usage: pwm {name} key=value ...",
        purpose,
        f"example: {COMMANDS[name].example}",
        "settings and their defaults (??? must be given):",
        resolved,
        inspect.getdoc(config_type) or "",
    ]
    if groups:
        parts.insert(3, "presets: " + "  ".join(groups))
    return "\n\n".join(part.strip() for part in parts)


def resolved_groups(name: str) -> set[str]:
    """Config groups that a command's YAML file chooses from."""
    from omegaconf import OmegaConf

    loaded = OmegaConf.to_container(OmegaConf.load(config_directory() / f"{name}.yaml"))
    assert isinstance(loaded, dict)
    entries = loaded.get("defaults", [])
    return {str(key).split("@")[0] for entry in entries if isinstance(entry, dict) for key in entry}


if __name__ == "__main__":
    sys.exit(main())
