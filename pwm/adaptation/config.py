"""Settings of ``pwm adapt``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.settings import setting
from pwm.core.suites import task_names
from pwm.core.validation import (
    require_at_least,
    require_choice,
    require_resume,
    require_seed,
)
from pwm.data.problems import ON_ERROR
from pwm.data.windows.sampler import DEFAULT_MEMORY, require_data_device
from pwm.multitask.finetuning import Finetuning, first_share, require_finetuning
from pwm.pretraining.config import HorizonSchedule
from pwm.pretraining.learner import LearnerConfig
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.device import resolve_device
from pwm.runtime.run_dir import require_output
from pwm.runtime.wandb_run import require_wandb


@dataclass
class AdaptConfig(LearnerConfig):
    """Settings of ``pwm adapt``.

    Attributes:
        task: a task that the world model does not know, or several: a file that describes it, or
            its name in ``data`` or in the benchmark.
        data: an episode store with the task.
        checkpoint: the world model, which has learned other tasks.
        out: the directory to make, a world model of the other tasks and the new ones.
        old_data: a store of tasks that the world model knows, on which forgetting is measured.
        replay: the share of ``old_data`` in the first batches of the fine-tuning; by default a half
            where it fades, and else 0.
        finetune: what trains after the embedding: ``none``; ``full``, all weights; ``diminish`` and
            ``switch``, all weights as old data fade or are left out at once; ``adaptive``, those
            units alone that matter for the new tasks more than for the old; ``lora``, low-rank
            changes of all layers, saved as a small file on ``checkpoint``.
        finetuning: what ``finetune`` depends on.
        embedding_of: the task of the world model with whose embedding new ones begin; by default
            the one with the lowest loss on held-out episodes.
        embedding_steps, embedding_lr: updates of the new tasks' embeddings alone, and their
            learning rate at first.
        steps: updates of the fine-tuning.
        on_error: what to do with bad data: ``stop``, or ``skip`` to leave them out and count them.
        batch_size: windows of an update.
        data_device: where the data live: ``cuda``, ``cpu``, or ``auto``, on the GPU if they fit.
        data_memory: GiB of memory that each store may take; more is read from its files.
        compile, precision: see :class:`pwm.runtime.acceleration.Acceleration`.
        max_skipped: updates in a row whose loss or gradient may be not finite, and which are
            skipped, before training stops.
    """

    task: Any = MISSING
    data: str = setting(MISSING, input_path=True)
    checkpoint: str = setting(MISSING, input_path=True)
    out: str = MISSING
    old_data: str | None = setting(None, input_path=True)
    replay: float | None = None
    finetune: str = "full"
    finetuning: Finetuning = field(default_factory=Finetuning)
    embedding_of: str | None = None
    embedding_steps: int = 300
    embedding_lr: float = 1e-2
    steps: int = 2000
    warmup: int = 50
    seed: int = 0
    device: str = setting("auto", may_change=True)
    compile: str = "auto"
    precision: str = "auto"
    resume: str = "auto"
    batch_size: int = 256
    horizon: HorizonSchedule = field(default_factory=HorizonSchedule)
    on_error: str = setting("stop", may_change=True)
    data_device: str = setting("auto", may_change=True)
    data_memory: float = setting(DEFAULT_MEMORY / 2**30, may_change=True)
    log_every: int = setting(50, may_change=True)
    diagnose_every: int = 1_000
    save_every: int = setting(500, may_change=True)
    keep_last: int = setting(2, may_change=True)
    max_skipped: int = setting(100, may_change=True)
    wandb_project: str | None = setting(None, may_change=True)

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        super().validate()
        self.horizon.validate()
        Acceleration(self.compile, self.precision).validate()
        require_at_least(self, 1, "embedding_steps", "batch_size", "max_skipped")
        require_at_least(self, 1, "log_every", "diagnose_every", "save_every", "keep_last")
        require_at_least(self, 0, "embedding_lr", "data_memory")
        require_seed(self, "seed")
        require_finetuning(self)
        if self.finetuning.per_task:
            raise PwmError(
                "finetuning.per_task=true is a setting of pwm pretrain; adapt one task at a time."
            )
        require_choice(self, "on_error", ON_ERROR)
        require_resume(self)
        require_wandb(self.wandb_project)
        require_data_device(self.data_device, resolve_device(self.device))
        require_output(self)
        task_names(self.task)
        if self.others and self.old_data is None:
            how = f"finetune={self.finetune}" if self.replay is None else f"replay={self.replay:g}"
            raise PwmError(
                f"{how} needs data of tasks that the world model knows; give them as old_data=."
            )

    @property
    def others(self) -> float:
        """The share of old data in the first batches of the fine-tuning."""
        return first_share(self.finetune, self.replay)

    def of_embedding(self) -> AdaptConfig:
        """The settings of the updates of embeddings alone, on data of the new tasks."""
        return replace(
            self, steps=self.embedding_steps, lr=self.embedding_lr,
            lr_final=self.embedding_lr / 10, warmup=min(self.warmup, self.embedding_steps // 10),
            balance="task", aggregate="mean",
        )  # fmt: skip
