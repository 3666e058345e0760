"""Bundles to ship: a run's world model and policies as small files that every command opens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pwm.core.errors import PwmError
from pwm.core.layout import BEST
from pwm.models.policy_directory import find_policies, policy_path
from pwm.models.world_model import KIND, load_world_model, model_meta
from pwm.reporting.growth_rounds import read_rounds
from pwm.runtime.checkpoint import (
    is_checkpoint,
    read_meta,
    save_checkpoint,
    shared_files,
    to_float16,
)
from pwm.runtime.training_checkpoints import list_steps

_DIRECTORIES = re.compile(r"(?<![\w.~])/(?:[\w.@+-]+/)+")


@dataclass(frozen=True)
class RunParts:
    """Where a run keeps the parts of a bundle."""

    run: Path
    world_models: tuple[Path, ...]  # one per round, or the only one; the last one ships
    policies: tuple[Path, ...]  # likewise directories of policies
    data: Path  # the episode store
    best: Path | None = None  # policies of all rounds, which ship in the place of the last's

    @classmethod
    def of(cls, run: Path) -> RunParts:
        """The parts of a run of ``pwm grow`` or ``pwm quickstart``, or of one laid out like those.

        Raises:
            PwmError: if there is no such run.
        """
        if not run.is_dir():
            raise PwmError(f"there is no run directory {run}; give that of pwm grow or quickstart.")
        rounds = [run / f"round_{entry.number:02d}" for entry in read_rounds(run)] or [run]
        return cls(
            run,
            tuple(path / "world_model" for path in rounds if (path / "world_model").is_dir()),
            tuple(path / "policies" for path in rounds if (path / "policies").is_dir()),
            run / "data",
            run / BEST if (run / BEST).is_dir() else None,
        )


def ship_world_model(source: Path, out: Path) -> None:
    """Write a world model with its weight matrices in float16.

    Args:
        source: a pretraining run or one checkpoint.
        out: the checkpoint's directory.

    Raises:
        PwmError: if there is no world model.
    """
    model = load_world_model(source)
    meta = {**model_meta(model), "step": newest_meta(source).get("step")}
    save_checkpoint(out, KIND, {"model": to_float16(model.state_dict())}, meta)


def newest_meta(world_model: Path) -> dict[str, Any]:
    """The meta of the newest checkpoint of a pretraining run, or of one checkpoint."""
    steps = list_steps(world_model / "checkpoints")
    return read_meta(steps[-1] if steps else world_model, KIND)


def ship_policies(source: Path, out: Path) -> list[str]:
    """Write policies compactly: without critics, matrices in float16, an encoder once for all.

    Args:
        source: the directory that extraction wrote.
        out: gets one directory per task, and the encoders that they share.

    Returns:
        The tasks' names.

    Raises:
        PwmError: if there is no policy.
    """
    policies = find_policies(source)
    for name, policy in policies.items():
        made_by = read_meta(policy_path(source, name), "policy")["made_by"]
        policy.save(out / name, without_places(made_by), compact=True)
    _delete_others(out, set(policies))
    return list(policies)


def without_places(value: Any) -> Any:
    """Plain data whose absolute paths have lost the directories that only one machine has."""
    if isinstance(value, Mapping):
        return {key: without_places(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_places(entry) for entry in value]
    return _DIRECTORIES.sub("", value) if isinstance(value, str) else value


def _delete_others(out: Path, names: set[str]) -> None:
    """Delete shared files that no policy names any more; refuse policies of an earlier shipping."""
    if others := sorted(p.name for p in out.iterdir() if is_checkpoint(p) and p.name not in names):
        raise PwmError(f"{out} also has a policy of {others[0]}, which the run lacks; delete it.")
    wanted = {file for name in names for file in shared_files(out / name, "policy")}
    for file in out.glob("*.safetensors"):
        if file.name not in wanted:
            file.unlink()
