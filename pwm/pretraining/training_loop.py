"""The loop around the updates of a world model: metrics, diagnostics, checkpoints, signals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.progress import progress_bar
from pwm.core.signals import StopSignals
from pwm.data.windows.batch import Batch
from pwm.models.world_model import model_meta
from pwm.pretraining.diagnostics import diagnose
from pwm.pretraining.learner import WorldModelLearner
from pwm.runtime.distributed import Ranks
from pwm.runtime.first_step import FirstStep
from pwm.runtime.metrics import MetricsLogger, NoMetrics
from pwm.runtime.processor import say_if_busy
from pwm.runtime.run_dir import resolved_config


class Source(NamedTuple):
    """Where the batches of a run come from, and what the run is called.

    Attributes:
        batches: those of the updates from ``begin`` to ``end`` with windows of ``horizon`` steps,
            as ``batches(begin, end, horizon)``.
        digest: of the data, for checkpoints.
        label: of the progress bar.
        activity: for a message, such as ``pretraining``.
    """

    batches: Callable[[int, int, int], Iterator[Batch]]
    digest: str
    label: str = "pretrain"
    activity: str = "pretraining"


def train(
    learner: WorldModelLearner,
    config: Any,
    source: Source,
    held_out: list[Batch],
    out: Path,
    start: int,
    ranks: Ranks,
) -> None:
    """Update a learner until all steps are done, logging, diagnosing and saving as configured.

    Args:
        learner: as it is at ``start``.
        config: settings with ``steps``, ``horizon``, ``log_every``, ``diagnose_every``,
            ``save_every``, ``keep_last``, ``max_skipped`` and ``wandb_project``.
        source: of batches.
        held_out: windows that the model is judged by.
        out: where metrics, diagnostics and ``checkpoints`` are written.
        start: the step to begin with.
        ranks: the processes that train together.

    Raises:
        PwmError: if training diverges.
        Interrupted: after saving, when a signal asked for it.
    """
    step = start
    logger: MetricsLogger | NoMetrics = NoMetrics()
    if ranks.main:
        logger = MetricsLogger(out, start, config.wandb_project, resolved_config(config))
    signals = StopSignals(patient=ranks.size > 1)
    with closing(logger), signals, progress_bar() as progress:
        bar = progress.add_task(source.label, total=config.steps, completed=start, note="")
        say_if_busy(learner.accelerator.device)
        first = FirstStep(learner.accelerator)
        for begin, end, horizon in config.horizon.phases(start, config.steps):
            for batch in source.batches(begin, end, horizon):
                lr = learner.set_learning_rate(step)
                metrics = learner.update(batch)
                step += 1
                first.report(metrics["grad_norm"])
                if step % config.log_every == 0 or step == config.steps:
                    logged = {**metrics, "lr": lr, "horizon": horizon, **learner.by_task()}
                    logger.log(step, logged)
                    _require_progress(learner, config, step, out, ranks)
                    progress.update(bar, note=f"loss {_summary(metrics)}")
                progress.update(bar, completed=step)
                if step % config.diagnose_every == 0 or step == config.steps:
                    _write_diagnostics(learner, held_out, out, step, ranks)
                stop = ranks.any_stop_signal(signals.requested)
                if stop or step % config.save_every == 0 or step == config.steps:
                    logger.flush()
                    _require_progress(learner, config, step, out, ranks)
                    _save(learner, config, source.digest, step, out, ranks)
                    ranks.raise_if_requested(
                        signals,
                        f"{source.activity} saved at step {step} of {config.steps} in {out}; "
                        "the same command goes on from there.",
                    )


def _summary(metrics: dict[str, Tensor]) -> str:
    return f"{float(metrics['consistency_loss']):.4f} + {float(metrics['reward_loss']):.3f}"


def _require_progress(
    learner: WorldModelLearner, config: Any, step: int, out: Path, ranks: Ranks
) -> None:
    skipped = int(learner.skipped_in_a_row)
    with ranks.raise_together():
        if skipped >= config.max_skipped:
            raise PwmError(
                f"training diverged: loss or gradient of the last {skipped} updates by step {step} "
                f"were not finite. The checkpoints in {out} are from before; begin anew with a "
                "lower lr or a shorter first horizon, or look at the data with `pwm data verify`."
            )


def _save(
    learner: WorldModelLearner,
    config: Any,
    digest: str,
    step: int,
    out: Path,
    ranks: Ranks,
) -> None:
    with ranks.raise_together():
        if broken := learner.broken_weights():
            raise PwmError(
                f"training diverged: the weights {broken[0]} are not finite by step {step}. The "
                f"checkpoints in {out} are from before; begin anew with a lower lr."
            )
    meta = {
        **model_meta(learner.model), "config": resolved_config(config), "data": digest,
        **learner.changes.meta,
    }  # fmt: skip
    learner.save(out / "checkpoints", step, meta, config.keep_last)


def _write_diagnostics(
    learner: WorldModelLearner, held_out: list[Batch], out: Path, step: int, ranks: Ranks
) -> None:
    with learner.whole_weights():
        found = diagnose(learner.model, held_out, learner.changes.of_tasks)
    report = {"step": step, **found}
    if ranks.main:
        write_atomically(out / "diagnostics.json", json.dumps(report, indent=1).encode())
