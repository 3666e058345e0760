"""``pwm analyze``: how the tasks of a world model relate, and what to do about it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pwm.analysis.config import AnalyzeConfig
from pwm.analysis.gradients import gradient_products, passes, shared_layers
from pwm.analysis.measured import Arrays, Measured
from pwm.analysis.page import page
from pwm.analysis.summary import summary
from pwm.analysis.task_windows import TaskWindows, mean_loss, window_losses
from pwm.analysis.training import (
    FEWEST_CHECKPOINTS,
    ShortTraining,
    kept_checkpoints,
    losses_after,
    losses_by_checkpoint,
    losses_by_update,
)
from pwm.core.described_tasks import tasks_of
from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically
from pwm.core.progress import console, progress_bar
from pwm.core.signals import StopSignals
from pwm.core.suites import task_names
from pwm.data.inspection import open_checked
from pwm.data.problems import BadData
from pwm.data.shared_tasks import shared_tasks
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import Batch
from pwm.models.world_model import WorldModel, load_world_model
from pwm.multitask.groups import write_groups
from pwm.pretraining.diagnostics import diagnose
from pwm.runtime.device import use_device
from pwm.runtime.grouped import member_of
from pwm.runtime.inputs import inputs_made_of
from pwm.runtime.processor import say_if_busy
from pwm.runtime.run_dir import open_run


class _Subject(NamedTuple):
    """What is analyzed, and with which settings."""

    config: AnalyzeConfig
    model: WorldModel
    store: EpisodeStore
    windows: TaskWindows
    checkpoints: list[Path]  # for data maps; none for a short training
    training: ShortTraining


def analyze(config: AnalyzeConfig) -> Path:
    """Measure how the tasks of a world model relate; write pictures, numbers, groups and advice.

    Returns:
        The page, analysis.html.

    Raises:
        PwmError: for settings, a world model or data that do not fit.
        Interrupted: when SIGINT or SIGTERM asked for it; what was measured is kept.
    """
    config.validate()
    device = use_device(config.device)
    say_if_busy(device)
    asked = None if config.tasks is None else task_names(config.tasks)
    path = member_of(Path(config.checkpoint), asked)
    model = load_world_model(path, device, asked)
    bad = BadData(config.on_error)
    store = open_checked(config.data, bad)
    names = _names(config, model, store)
    checkpoints = _checkpoints(config, path)
    windows = TaskWindows.drawn(store, model, names, config.windows, config.seed, bad)
    training = ShortTraining(model, store, config, bad)
    subject = _Subject(config, model, store, windows, checkpoints, training)
    out, measured = Path(config.out), Measured(Path(config.out) / "measured")
    made_of = inputs_made_of(config)
    with open_run(out, "analyze", config, made_of, made_of if measured.any() else ()):
        found = _measure(subject, measured)
        _write(found, out)
    bad.report(console.print)
    for finding in found["findings"]:
        console.print(f"{finding['found']} {finding['action']}", soft_wrap=True, highlight=False)
    console.print(f"Analysis: {out / 'analysis.html'}", soft_wrap=True)
    return out / "analysis.html"


def _names(config: AnalyzeConfig, model: WorldModel, store: EpisodeStore) -> list[str]:
    asked = None
    if config.tasks is not None:
        asked = [task.name for task in tasks_of(config.tasks, model.suite, config.checkpoint)]
    names = [task.name for task in shared_tasks(store, model.suite, asked)]
    if len(names) < 2:
        raise PwmError(
            f"{config.checkpoint} and {config.data} share one task, {names[0]}, and relations are "
            "between several; give a world model and data of more."
        )
    return names


def _checkpoints(config: AnalyzeConfig, path: Path) -> list[Path]:
    if not config.map_updates and config.map_from != "checkpoints":
        return []
    steps = kept_checkpoints(path, config.map_from)
    if config.map_from == "checkpoints" and len(steps) < FEWEST_CHECKPOINTS:
        raise PwmError(
            f"{path} keeps {len(steps)} checkpoints and a data map needs "
            f"{FEWEST_CHECKPOINTS}; pretrain with keep_last=10, or give map_from=training."
        )
    return steps


def _measure(subject: _Subject, measured: Measured) -> dict[str, Any]:
    """All measurements, those of before from disk, as plain data."""
    config, number, facts = subject.config, len(subject.windows.names), _facts(subject)
    passed = number * passes(shared_layers(subject.model), number, config.parts)
    points = len(subject.checkpoints) or config.map_updates
    total = passed + number * config.transfer_updates + points
    hint = f"what was measured is kept in {config.out}; the same command goes on from there."
    with StopSignals() as signals, progress_bar() as progress:
        bar = progress.add_task("analyze", total=total, note="")

        def done(note: str, steps: int = 1) -> None:
            progress.update(bar, advance=steps, note=note)
            signals.raise_if_requested(hint)

        def kept(name: str, steps: int, note: str, make: Callable[..., Arrays]) -> Arrays:
            found = measured.get(name)
            if found is None:
                return measured.put(name, make(partial(done, note)))
            done(note, steps)
            return found

        gradients = kept("gradients", passed, "gradients", partial(_gradients, subject))
        rows = [
            kept(
                f"transfer_{name}", config.transfer_updates, f"transfer from {name}",
                partial(_transfer, subject, name, batch),
            )["losses"]
            for name, batch in zip(subject.windows.names, subject.windows.held_out, strict=True)
            if config.transfer_updates
        ]  # fmt: skip
        data_map = None
        if points:
            data_map = kept("data_map", points, "data map", partial(_data_map, subject))
    return summary(
        facts, gradients, np.stack(rows) if rows else None, data_map,
        "checkpoints" if subject.checkpoints else "training", config.clusters, config.out,
    )  # fmt: skip


def _gradients(subject: _Subject, done: Callable[[], object]) -> Arrays:
    model = copy.deepcopy(subject.model).unfreeze()

    def loss(batch: Any) -> Any:
        return mean_loss(model, batch, subject.config.learner)

    return gradient_products(
        shared_layers(model), subject.windows.held_out, loss, subject.config.parts, done
    )


def _transfer(subject: _Subject, name: str, batch: Batch, done: Callable[[], object]) -> Arrays:
    """Held-out losses after updates on a task, (K, windows)."""
    losses = losses_after(subject.training, batch, name, subject.windows, subject.config, done)
    return {"losses": losses}


def _data_map(subject: _Subject, done: Callable[[], object]) -> Arrays:
    """Updates (n,) and the losses of windows of training then, (n, K, windows)."""
    given = subject.windows, subject.model, subject.config, done
    if subject.checkpoints:
        found = list(losses_by_checkpoint(subject.checkpoints, *given))
    else:
        found = list(losses_by_update(subject.training, *given))
    updates, losses = zip(*found, strict=True)
    return {"updates": np.array(updates), "losses": np.stack(losses)}


def _facts(subject: _Subject) -> dict[str, Any]:
    """What is known without any training: errors, losses, embeddings."""
    config, model, windows = subject.config, subject.model, subject.windows
    quality = diagnose(model, windows.held_out)["tasks"]
    held_out, train = (
        window_losses(model, batches, config.learner).numpy()
        for batches in (windows.held_out, windows.train)
    )
    broken = ~np.isfinite(held_out + train).all(1)
    if broken.any():
        raise PwmError(
            f"the losses of {windows.names[broken.argmax()]} are not finite in "
            f"{config.checkpoint}; give a checkpoint of before training diverged."
        )
    embedding = None
    if model.size.task_dim:
        ids = windows.held_out[0].task.new_tensor([model.suite.id(n) for n in windows.names])
        embedding = model.task_embedding(ids).double().cpu().numpy()
    return {
        "checkpoint": config.checkpoint,
        "data": config.data,
        "tasks": [model.suite[name] for name in windows.names],
        "held_out": held_out,
        "train": train,
        "quality": [quality[name] for name in windows.names],
        "embedding": embedding,
        "transfer_updates": config.transfer_updates,
    }


def _write(found: dict[str, Any], out: Path) -> None:
    for name, clustering in found["clusters"].items():
        make_directory(out / "groups")
        write_groups(out / "groups" / f"{name}.json", name, clustering["groups"])
    write_atomically(out / "analysis.html", page(found))
    content = json.dumps(found, indent=1, allow_nan=False)
    write_atomically(out / "analysis.json", content.encode())
