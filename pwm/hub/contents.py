"""What of a directory goes to the hub, and whether what came from there is whole."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, writing
from pwm.core.layout import MANIFEST_NAME
from pwm.core.suites import Task
from pwm.data.inspection import verify
from pwm.data.store import EpisodeStore
from pwm.models.low_rank import BASE
from pwm.models.policy import saved_task
from pwm.models.policy_directory import policy_path, policy_tasks
from pwm.models.world_model import KIND, load_world_model, model_meta
from pwm.reporting.bundle import newest_meta
from pwm.runtime.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint, saved_kind
from pwm.runtime.checkpoint_index import INDEX, read_index
from pwm.runtime.grouped import is_grouped

CARD = "card.json"
FILES = (f"*{INDEX}", "*.safetensors", "*.safetensors.xz", CARD, f"data/{MANIFEST_NAME}")
"""Patterns of the files that commands read, which alone are replaced and fetched."""


@dataclass(frozen=True)
class Contents:
    """What lies in a directory as the hub has it.

    Attributes:
        policies: the directory with a directory for each task, or None.
        tasks: of the policies, or of the world model where there are none.
        world_model: its checkpoint, or None.
        parameters: of the world model.
        card: the facts of a bundle's card, or None.
    """

    policies: Path | None
    tasks: tuple[Task, ...]
    world_model: Path | None
    parameters: int
    card: Path | None


def gather(source: Path, out: Path) -> None:
    """Copy what the hub gets of a directory: no state of training, no logs, no paths.

    Args:
        source: a policy, a directory of policies, a world model (a pretraining run or one
            checkpoint), or a bundle: a directory with ``world_model``, ``policies`` or both.
        out: a directory, which gets a bundle's parts under their names, a world model alone as it
            is, and policies alone in a directory per task, with what they share beside these.

    Raises:
        PwmError: if there is nothing of this in ``source``, or it is damaged.
    """
    parts = [name for name in ("world_model", "policies") if (source / name).is_dir()]
    if parts:
        _gather_bundle(source, parts, out)
    elif _is_world_model(source):
        _gather_world_model(source, out)
    else:
        _gather_policies(source, out)


def _is_world_model(path: Path) -> bool:
    if is_checkpoint(path):
        return saved_kind(path) == KIND
    return is_grouped(path) or (path / "checkpoints").is_dir()


def _gather_bundle(source: Path, parts: list[str], out: Path) -> None:
    if "world_model" in parts:
        _gather_world_model(source / "world_model", out / "world_model")
    if "policies" in parts:
        _gather_policies(source / "policies", out / "policies")
    if (source / CARD).is_file():
        _copy(source / CARD, out / CARD)
        if (source / "data").is_dir():  # of a run, whose data are no sample, it is not sent
            make_directory(out / "data")
            for pattern in (MANIFEST_NAME, "*.safetensors.xz"):
                for file in (source / "data").glob(pattern):
                    _copy(file, out / "data" / file.name)


def _gather_world_model(source: Path, out: Path) -> None:
    index = read_index(source, KIND) if is_checkpoint(source) else None
    if index is not None and set(index.groups) == {"model"} and BASE not in index.meta:
        for name in (*index.files(), INDEX):
            _copy(source / name, out / name)
        return
    model = load_world_model(source)  # without the optimizer's state
    meta = {**model_meta(model), "step": newest_meta(source).get("step")}
    save_checkpoint(out, KIND, {"model": model.state_dict()}, meta)


def _gather_policies(source: Path, out: Path) -> None:
    for name, task in policy_tasks(source).items():
        path = policy_path(source, name)
        folder = out / (task.name if path == source else name)
        for file in read_index(path, "policy").files():
            _copy(path / file, folder / file)
        _copy(path / INDEX, folder / INDEX)


def _copy(file: Path, to: Path) -> None:
    if not file.is_file():
        raise PwmError(f"{file} is missing; use another checkpoint.")
    to = to.resolve()  # shared files lie above the directories that name them
    make_directory(to.parent)
    with writing(to):
        shutil.copyfile(file, to)


def verified(directory: Path) -> Contents:
    """What a directory holds that came from the hub, or goes there, every byte compared.

    Checkpoints and packed data have the SHA-256 of their files.

    Raises:
        PwmError: if it holds no policy and no world model, or a file is damaged or missing.
    """
    found = sorted(path.parent for path in directory.rglob(INDEX))
    kinds = {path: saved_kind(path) for path in found}
    others = {kind for kind in kinds.values() if kind not in ("policy", KIND)}
    if not found or others:
        held = f"a checkpoint of kind {others.pop()}" if others else "no policy and no world model"
        raise PwmError(f"{directory} holds {held}; give a repository that pwm push made.")
    for path, kind in kinds.items():
        load_checkpoint(path, kind)
    policies = [path for path in found if kinds[path] == "policy"]
    models = [path for path in found if kinds[path] == KIND]
    tasks = [saved_task(path) for path in policies]
    parameters = 0
    for path in models:
        model = load_world_model(path)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if not tasks:
            tasks = list(model.suite)
    for manifest in directory.rglob(MANIFEST_NAME):
        _check_data(manifest.parent)
    card = directory / CARD
    return Contents(
        policies[0].parent if policies else None,
        tuple(tasks),
        models[0] if models else None,
        parameters,
        card if card.is_file() else None,
    )


def _check_data(directory: Path) -> None:
    with EpisodeStore.open(directory) as store:
        if problem := next(verify(store), None):
            raise PwmError(f"{directory} is damaged ({problem}); get it again.")
