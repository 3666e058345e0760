"""``pwm deploy``: policies and world models become files that run without this project."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.files import directory_sha256, make_directory, write_atomically, writing
from pwm.core.progress import console
from pwm.core.settings import require_inputs, setting
from pwm.core.suites import get_suite, task_names
from pwm.core.validation import require_choice, require_writable
from pwm.deployment.comparison import Run, compared, latency
from pwm.deployment.metadata import described, metadata
from pwm.deployment.network import Network
from pwm.deployment.numpy_file import module_name, numpy_in_float64, numpy_source, open_numpy
from pwm.deployment.onnx_file import onnx_in_float64, onnx_model, open_onnx
from pwm.deployment.sources import PolicySource, Source, WorldModelSource
from pwm.deployment.torch_program import (
    open_executable,
    open_program,
    program_in_float64,
    require_compiler,
    write_executable,
    write_program,
)
from pwm.evaluation.mppi_agent import content_of
from pwm.models.policy import load_policy
from pwm.models.policy_directory import policy_path, policy_tasks, require_policy
from pwm.models.world_model import load_world_model

FORMATS = {"onnx": ".onnx", "torch": ".pt2", "numpy": ".py", "executable": ".compiled.pt2"}


@dataclass
class DeployConfig:
    """Settings of ``pwm deploy``.

    Attributes:
        policy: a directory of policies, one per task, or one policy's directory.
        checkpoint: instead, a world model: a pretraining run, one checkpoint, or an imported model.
        task: the task to deploy; null for every task that there is a policy for. A world model is
            deployed for one task.
        to: ``onnx``; ``torch``, a program for ``torch.export.load``; ``numpy``, one Python file;
            or ``executable``, machine code by AOTInductor for this kind of processor.
        out: the directory that gets the files, which must not be there yet.
        latency: time each function at a single row, and keep that with its metadata.
    """

    policy: str | None = setting(None, input_path=True)
    checkpoint: str | None = setting(None, input_path=True)
    task: str | None = None
    to: str = "onnx"
    out: str = MISSING
    latency: bool = False

    def validate(self) -> None:
        """Raise PwmError for settings that do not fit each other."""
        require_choice(self, "to", tuple(FORMATS))
        if (self.policy is None) == (self.checkpoint is None):
            raise PwmError("give either policy= or checkpoint=, what to deploy.")
        if self.checkpoint is not None and self.task is None:
            raise PwmError("task= is missing: a world model is deployed for one of its tasks.")
        require_inputs(self)
        require_writable(self.out)


def deploy(config: DeployConfig) -> list[Path]:
    """Write policies, or the functions of a world model, as files that run without this project.

    A policy file takes the environment's raw observations and gives actions in the environment's
    units: normalization, angle wrapping, task embedding, encoder, actor and action bounds are
    inside. Each is compared with the original before it is written.

    Returns:
        The files, of which the last of each task is JSON that describes the others.

    Raises:
        PwmError: for settings that do not fit, files that exist, what is not installed, or a file
            that computes something else than the original.
    """
    config.validate()
    if config.to == "executable":
        require_compiler()
    out = Path(config.out)
    written: list[Path] = []
    for source, sha256 in _sources(config):
        written += _deployed(source, sha256, out, config)
    return written


def _sources(config: DeployConfig) -> Iterator[tuple[Source, str]]:
    """What to deploy and the digests of what it comes from, after the files to write are free."""
    out = Path(config.out)
    if config.checkpoint is not None:
        assert config.task is not None
        model = load_world_model(config.checkpoint, tasks=task_names(config.task))
        (task, *others) = get_suite(config.task, model.suite)
        if others or task.name not in model.suite:
            raise PwmError(
                f"task={config.task} is no single task of {config.checkpoint}; its tasks are "
                f"{', '.join(model.suite.names)}."
            )
        source = WorldModelSource(model, model.suite[task.name])
        _require_free(out, _file_names(source.kind, task.name, source.networks, config.to))
        yield source, content_of(model)
        return
    assert config.policy is not None
    directory = Path(config.policy)
    found = policy_tasks(directory)
    if config.task is not None:
        require_policy(directory, found, config.task)
    names = [*found] if config.task is None else [config.task]
    _require_free(
        out, [file for name in names for file in _file_names("policy", name, (), config.to)]
    )
    for name in names:
        path = policy_path(directory, name)
        yield PolicySource(load_policy(path)), directory_sha256(path)


def _require_free(out: Path, names: Iterable[str]) -> None:
    for name in names:
        if (out / name).exists():
            raise PwmError(f"{out / name} exists; give another out= or delete it.")


def _file_names(kind: str, task: str, functions: Iterable[str], to: str) -> list[str]:
    """Of the files with the networks, one per function or one in all for NumPy, and of the JSON."""
    suffix, of_model = FORMATS[to], "" if kind == "policy" else f".{kind}"
    if to == "numpy":
        files = [module_name(task + of_model) + suffix]
    elif kind == "policy":
        files = [task + suffix]
    else:
        files = [f"{task}.{name}{suffix}" for name in functions]
    return [*files, f"{task}{of_model}.{to}.json"]


def _deployed(source: Source, sha256: str, out: Path, config: DeployConfig) -> list[Path]:
    facts = metadata(source, sha256)
    *names, summary = _file_names(source.kind, source.task.name, source.networks, config.to)
    make_directory(out)
    with writing(out), tempfile.TemporaryDirectory(prefix=".deploy-", dir=out) as directory:
        made = [Path(directory) / name for name in names]
        _write(source, facts, config.to, made)
        facts["functions"] = _checked(source, made, config)
        for file in made:
            write_atomically(out / file.name, file.read_bytes())
    write_atomically(out / summary, f"{json.dumps(facts, indent=1)}\n".encode())
    _tell(source, facts, [out / name for name in names])
    return [out / name for name in (*names, summary)]


def _write(source: Source, facts: Mapping[str, Any], to: str, made: list[Path]) -> None:
    if to == "numpy":
        made[0].write_text(numpy_source(source.networks, facts))
        return
    for file, (name, network) in zip(made, source.networks.items(), strict=True):
        own = {"pwm.json": json.dumps({**facts, "function": name, **described(network)})}
        if to == "onnx":
            file.write_bytes(onnx_model(network, _flat(facts, own)))
        elif to == "torch":
            write_program(network, own, file)
        else:
            write_executable(network, own, file)


def _flat(facts: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, str]:
    """The metadata with what a reader without JSON wants under its own key."""
    return {
        "task": facts["task"]["name"],
        "pwm_version": facts["pwm_version"],
        "source_sha256": facts["source_sha256"],
        **own,
    }


def _checked(source: Source, made: list[Path], config: DeployConfig) -> dict[str, Any]:
    """What is known of every function, once it has been compared with the original."""
    functions = {}
    files = made * len(source.networks) if len(made) == 1 else made
    for file, (name, network) in zip(files, source.networks.items(), strict=True):
        functions[name] = {"file": file.name, **described(network)}
        run, in_float64 = _opened(file, name, network, config.to)
        if run is None or in_float64 is None:
            continue
        found = compared(run, in_float64, source, name)
        functions[name]["difference_in_float64"] = found.in_float64
        functions[name]["distance_from_float64"] = found.distance
        functions[name]["rounding"] = found.rounding
        functions[name]["largest_difference"] = found.largest
        if config.latency:
            median, slow = latency(run, source.samples(name, 64))
            functions[name]["microseconds"] = {"p50": round(median, 1), "p99": round(slow, 1)}
    return functions


def _opened(file: Path, function: str, network: Network, to: str) -> tuple[Run | None, Run | None]:
    """What a file computes, and what the same operators do in float64."""
    if to == "onnx":
        return open_onnx(file), onnx_in_float64(network)
    if to == "numpy":
        return open_numpy(file, function), numpy_in_float64(file, network)
    opened = open_program if to == "torch" else open_executable
    return opened(file), program_in_float64(network)


def _tell(source: Source, facts: Mapping[str, Any], files: list[Path]) -> None:
    kind = source.kind.replace("_", " ")
    size = sum(file.stat().st_size for file in files) / 1e6
    console.print(
        f"The {kind} of {source.task.name} is in {', '.join(map(str, files))} ({size:.2f} MB).",
        soft_wrap=True,
    )
    for name, function in facts["functions"].items():
        if "largest_difference" not in function:
            console.print(
                f"{name}: not compared with torch, since onnxruntime is not installed; pip install "
                "onnxruntime.",
                soft_wrap=True,
            )
            continue
        line = (
            f"{name}: in float64 as torch within {function['difference_in_float64']:.1e}; in "
            f"float32 within {function['distance_from_float64']:.1e} of that, and torch within "
            f"{function['rounding']:.1e}"
        )
        if "microseconds" in function:
            p50, p99 = function["microseconds"].values()
            line += f"; {p50:.0f} us (p50), {p99:.0f} us (p99) at one row"
        console.print(f"{line}.", soft_wrap=True)
    if facts["action"]["units"] == "normalized":
        console.print(
            f"The bounds of {source.task.name}'s actions are not known, so they are in [-1, 1]; "
            "call policy.set_action_bounds(low, high) and policy.save(path) in Python first.",
            soft_wrap=True,
        )
