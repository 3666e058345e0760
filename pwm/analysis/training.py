"""Short trainings from a world model on, and what they do to the losses of fixed windows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from pwm.analysis.config import AnalyzeConfig
from pwm.analysis.task_windows import TaskWindows, window_losses
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import Batch, WindowSampler
from pwm.models.world_model import WorldModel, load_world_model
from pwm.pretraining.learner import WorldModelLearner
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.training_checkpoints import list_steps

FEWEST_CHECKPOINTS = 3
_POINTS = 8  # of a short training, beside its beginning


class ShortTraining:
    """Trains copies of a world model, each on some tasks, from the same weights on.

    Args:
        model: where all begin.
        store: the data.
        config: of the updates.
        bad: told of bad data.
    """

    def __init__(
        self, model: WorldModel, store: EpisodeStore, config: AnalyzeConfig, bad: BadData
    ) -> None:
        self._model, self._store, self._config, self._bad = model, store, config, bad

    def on(self, tasks: Sequence[str], horizon: int, updates: int) -> Iterator[WorldModel]:
        """The model after each of some updates on windows of some tasks, the same object."""
        model, config = copy.deepcopy(self._model).unfreeze(), self._config
        device = model.bins.device
        windows = WindowSampler(
            self._store, horizon, config.batch_size, config.seed, suite=model.suite, tasks=tasks,
            device=device, bad=self._bad, terminations=model.episodic,
        )  # fmt: skip
        discount = torch.tensor([task.discount for task in model.suite], device=device)
        accelerator = Acceleration(config.compile, config.precision).prepare(device)
        torch.manual_seed(config.seed)
        learner = WorldModelLearner(model, config.learner, discount, accelerator)
        learner.set_learning_rate(0)
        for batch in windows.iterate(0, updates):
            learner.update(batch)
            yield model


def losses_after(
    training: ShortTraining,
    source: Batch,
    task: str,
    windows: TaskWindows,
    config: AnalyzeConfig,
    done: Callable[[], object],
) -> np.ndarray:
    """Held-out losses of all tasks, (K, windows), after updates on one task alone.

    Args:
        training: makes the updates.
        source: windows as long as those to train on.
        task: the one.
        windows: whose held-out losses.
        config: how many updates.
        done: called after each.
    """
    model: WorldModel | None = None
    for model in training.on([task], len(source.action), config.transfer_updates):  # noqa: B007
        done()
    assert model is not None
    return window_losses(model, windows.held_out, config.learner).numpy()


def kept_checkpoints(checkpoint: Path, wanted: str) -> list[Path]:
    """The checkpoints that data maps are to be from; none for a short training."""
    steps = list_steps(checkpoint / "checkpoints")
    enough = len(steps) >= FEWEST_CHECKPOINTS
    return steps if wanted != "training" and (enough or wanted == "checkpoints") else []


def losses_by_checkpoint(
    steps: Sequence[Path],
    windows: TaskWindows,
    model: WorldModel,
    config: AnalyzeConfig,
    done: Callable[[], object],
) -> Iterator[tuple[int, np.ndarray]]:
    """Updates, and losses of the windows of training, (K, windows), of each checkpoint.

    ``done`` is called after each.
    """
    for path in steps:
        other = load_world_model(path, model.bins.device, windows.names)
        losses = window_losses(other, windows.train, config.learner)
        yield int(path.name.split("_")[1]), losses.numpy()
        done()


def losses_by_update(
    training: ShortTraining,
    windows: TaskWindows,
    model: WorldModel,
    config: AnalyzeConfig,
    done: Callable[[], object],
) -> Iterator[tuple[int, np.ndarray]]:
    """Likewise, of nine moments of a training on all tasks; ``done`` is called after an update."""
    yield 0, window_losses(model, windows.train, config.learner).numpy()
    moments = set(np.linspace(0, config.map_updates, _POINTS + 1).astype(int)[1:].tolist())
    horizon = min(len(batch.action) for batch in windows.train)
    models = training.on(windows.names, horizon, config.map_updates)
    for update, trained in enumerate(models, start=1):
        if update in moments:
            yield update, window_losses(trained, windows.train, config.learner).numpy()
        done()
