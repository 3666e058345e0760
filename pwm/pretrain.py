"""Pretraining: one world model on offline episodes of many tasks."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING
from torch import Tensor

from pwm.checkpoint import (
    load_latest,
    prune_steps,
    save_checkpoint,
    step_name,
)
from pwm.dataset import EpisodeStore
from pwm.devices import resolve_device
from pwm.diagnose import diagnose
from pwm.errors import PwmError
from pwm.files import write_atomically
from pwm.interrupt import StopSignals
from pwm.metrics import MetricsLogger
from pwm.progress import console, progress_bar
from pwm.rundir import open_run
from pwm.moments import observation_moments
from pwm.sampler import WindowSampler
from pwm.suites import get_suite
from pwm.world_model_learner import LearnerConfig, WorldModelLearner
from pwm.world_model import (
    KIND,
    ModelSize,
    WorldModel,
    model_meta,
)

@dataclass
class HorizonSchedule:
    """Horizons over training: ``lengths[i]`` from the fraction ``starts[i]`` of all steps on."""

    lengths: list[int] = field(default_factory=lambda: [16])
    starts: list[float] = field(default_factory=lambda: [0.0])

    def validate(self) -> None:
        """Raise PwmError unless the two lists describe a schedule that begins at 0."""
        ordered = self.starts == sorted(self.starts) and all(0 <= s < 1 for s in self.starts)
        if len(self.lengths) != len(self.starts) or not ordered or self.starts[:1] != [0.0]:
            raise PwmError(
                f"horizon.starts={self.starts} must begin with 0.0, ascend below 1.0 and have one "
                f"entry for each of horizon.lengths={self.lengths}."
            )
        if min(self.lengths) < 1:
            raise PwmError(f"horizon.lengths={self.lengths} must all be at least 1.")

    def at(self, step: int, steps: int) -> int:
        """The horizon of an update."""
        return self.lengths[bisect_right(self.starts, step / steps) - 1]

    def phases(self, start: int, steps: int) -> Iterator[tuple[int, int, int]]:
        """(first, end, horizon) of the stretches that remain from ``start`` on."""
        bounds = [round(fraction * steps) for fraction in self.starts] + [steps]
        for horizon, first, end in zip(self.lengths, bounds, bounds[1:], strict=False):
            if end > max(first, start):
                yield max(first, start), end, horizon


@dataclass
class PretrainConfig(LearnerConfig):
    """Settings of ``pwm pretrain``; the values are those of the paper unless a config differs."""

    data: str = MISSING
    out: str = MISSING
    suite: Any = None
    seed: int = 0
    device: str = "auto"
    resume: str = "auto"

    model: ModelSize = field(default_factory=ModelSize)
    normalize_obs: bool = True
    q_and_prior: bool = False

    batch_size: int = 1024
    horizon: HorizonSchedule = field(default_factory=HorizonSchedule)
    balance: str = "task"

    log_every: int = 50
    diagnose_every: int = 10_000
    save_every: int = 5_000
    keep_last: int = 2
    wandb_project: str | None = None


def pretrain(config: PretrainConfig) -> Path:
    """Train a world model as configured, going on from the newest checkpoint if there is one.

    Returns:
        The run directory, which :func:`load_world_model` opens.

    Raises:
        PwmError: for settings or data that do not fit.
        Interrupted: after saving, when SIGINT or SIGTERM asked for it.
    """
    device = resolve_device(config.device)
    config.horizon.validate()
    store = EpisodeStore.open(config.data)
    suite = get_suite(config.suite) if config.suite else store.suite
    out = Path(config.out)
    with open_run(out, "pretrain", config, config.resume, _MAY_CHANGE):
        sampler = WindowSampler(
            store, config.horizon.at(0, 1), config.batch_size, config.seed, suite=suite,
            balance=config.balance, device=device,
        )
        torch.manual_seed(config.seed)
        model = WorldModel(config.model, suite, config.q_and_prior, config.normalize_obs)
        discount = torch.tensor([task.discount for task in suite], device=device)
        learner = WorldModelLearner(model.to(device), config, discount)
        start = _restore_or_begin(learner, store, out)
        _train(learner, sampler, store, out, start)
    return out


_MAY_CHANGE = ("device", "resume", "log_every", "save_every", "keep_last", "wandb_project")


def _restore_or_begin(learner: WorldModelLearner, store: EpisodeStore, out: Path) -> int:
    checkpoint = load_latest(out / "checkpoints", KIND, console.print)
    if checkpoint is not None:
        learner.load(checkpoint)
        return int(checkpoint.meta["step"])
    model = learner.model
    if model.normalize_obs:
        mean, scale = observation_moments(store, model.suite)
        model.obs_mean.copy_(torch.as_tensor(mean))
        model.obs_scale.copy_(torch.as_tensor(scale))
    return 0


def _train(
    learner: WorldModelLearner, sampler: WindowSampler, store: EpisodeStore, out: Path, start: int
) -> None:
    config, step = learner.config, start
    logger = MetricsLogger(out, start, config.wandb_project)
    with StopSignals() as signals, progress_bar() as progress:
        bar = progress.add_task("pretrain", total=config.steps, completed=start, note="")
        for first, end, horizon in config.horizon.phases(start, config.steps):
            for batch in sampler.iterate(first, end, horizon=horizon):
                lr = learner.set_learning_rate(step)
                metrics = learner.update(batch)
                step += 1
                if step % config.log_every == 0 or step == config.steps:
                    logger.log(step, {**metrics, "lr": lr, "horizon": horizon})
                    progress.update(bar, note=f"loss {_summary(metrics)}")
                progress.update(bar, completed=step)
                if step % config.diagnose_every == 0 or step == config.steps:
                    _write_diagnostics(learner.model, store, out, step, config.seed)
                if signals.requested or step % config.save_every == 0 or step == config.steps:
                    logger.flush()
                    _save(learner, out, step)
                    if step < config.steps:
                        signals.raise_if_requested(
                            f"pretraining saved at step {step} of {config.steps} in {out}; "
                            "the same command goes on from there."
                        )
    logger.close()


def _summary(metrics: dict[str, Tensor]) -> str:
    return f"{float(metrics['consistency_loss']):.4f} + {float(metrics['reward_loss']):.3f}"


def _save(learner: WorldModelLearner, out: Path, step: int) -> None:
    directory = out / "checkpoints"
    meta = {**model_meta(learner.model), "step": step}
    save_checkpoint(directory / step_name(step), KIND, learner.tensors(), meta)
    prune_steps(directory, learner.config.keep_last)


def _write_diagnostics(
    model: WorldModel, store: EpisodeStore, out: Path, step: int, seed: int
) -> None:
    report = {"step": step, **diagnose(model, store, seed)}
    write_atomically(out / "diagnostics.json", json.dumps(report, indent=1).encode())
