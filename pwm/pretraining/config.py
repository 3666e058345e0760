"""Settings of pretraining."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.settings import Choices, setting
from pwm.core.suites import Suite, task_names
from pwm.core.validation import (
    require_at_least,
    require_choice,
    require_exists,
    require_resume,
    require_seed,
    require_valid,
)
from pwm.data.problems import ON_ERROR
from pwm.data.windows.episode_weights import SamplingConfig
from pwm.data.windows.sampler import (
    DEFAULT_MEMORY,
    require_data_device,
)
from pwm.models.world_model import (
    ModelSize,
)
from pwm.multitask.config import EVEN, require_whole_weights
from pwm.multitask.finetuning import Finetuning, require_finetuning
from pwm.multitask.sharing import HeadSharing, require_sharing
from pwm.pretraining.architecture import EPISODIC
from pwm.pretraining.learner import LearnerConfig
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.device import resolve_device
from pwm.runtime.distributed import PARALLEL
from pwm.runtime.run_dir import require_output
from pwm.runtime.wandb_run import require_wandb

INIT_NORMALIZATION = ("keep", "widen", "data")


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
        if min(self.lengths, default=0) < 1:
            raise PwmError(f"horizon.lengths={self.lengths} must all be at least 1.")

    def phases(self, start: int, steps: int) -> Iterator[tuple[int, int, int]]:
        """(first, end, horizon) of the phases that remain from ``start`` on."""
        bounds = [round(fraction * steps) for fraction in self.starts] + [steps]
        for horizon, first, end in zip(self.lengths, bounds, bounds[1:], strict=False):
            if end > max(first, start):
                yield max(first, start), end, horizon


@dataclass
class PretrainConfig(LearnerConfig):
    """Settings of ``pwm pretrain``; the values are those of the paper unless a config differs.

    Attributes:
        init: a world model to start from: a pretraining run, a checkpoint or an imported model.
            Its architecture, task ids, normalization, and Q and prior if it has them, hold in
            place of ``model``, ``normalize_obs``, ``q_and_prior`` and ``episodic``.
        init_normalization: the normalization of observations that ``init`` has: ``keep`` it, or
            ``widen`` it where the data have outgrown it
            (:func:`pwm.pretraining.normalization.widened_moments`), or take that of the ``data``,
            angles wrapped, as a new model does.
        freeze_encoder: keep the latents of ``init``: its encoder and task embeddings learn nothing
            and its normalization stays, so that policies learned in them still read what they know.
        sampling: which windows are drawn more often than others.
        suite: the tasks to train on, by default all of ``data`` (that ``init`` knows).
        groups: one world model for each of so many groups of tasks, by embodiment, or for each
            group in a file that ``pwm analyze`` wrote; they share ``steps`` by their tasks. With
            ``sharing`` other than ``hard`` there is one world model, and heads differ by group.
        sharing: what the tasks share of one world model: ``hard``, all of it; ``soft``, all but
            low-rank changes of reward head and dynamics, of which each task, or group, has its own,
            and which are drawn towards none; ``branches``, all but the reward head, of which each
            group has its own.
        heads: what ``sharing`` depends on.
        on_error: what to do with bad data: ``stop``, or ``skip`` to leave them out and count them.
        batch_size: windows of an update, over all ranks and passes.
        accumulate: passes in which each rank goes through its share of the windows before it takes
            a step, for less memory.
        parallel: how the processes that torchrun started share the work: ``ddp``, each with the
            whole model; ``fsdp``, each with a part of weights and optimizer, and eagerly; ``auto``,
            ddp if there are several.
        data_device: where the data live: ``cuda``, ``cpu``, or ``auto``, on the GPU if they fit.
        data_memory: GiB of memory that the data may take; more are read from their files.
        compile, precision: see :class:`pwm.runtime.acceleration.Acceleration`.
        episodic: whether the world model predicts terminations: ``auto``, if an episode of the data
            terminated; ``always``; ``never``.
        finetune: of ``init``, for the tasks ``target``: ``full``, all weights, on their windows and
            the share ``replay`` of others; ``diminish``, as the others fade from batches, or
            ``switch``, as they are left out at once; ``adaptive``, those units alone that matter
            more for the targets than for others; ``lora``, low-rank changes of all layers, which
            are saved as a small file on ``init``. ``none`` trains on all tasks alike.
        target: the tasks to fine-tune for; ``all`` is all that ``init`` and ``data`` have.
        replay: the share of the other tasks in the first batches; by default a half where it
            fades, and else 0.
        finetuning: what ``finetune`` depends on.
        max_skipped: updates in a row whose loss or gradient may be not finite, and which are
            skipped, before training stops.
    """

    presets: ClassVar[Choices] = {"model": "5M"}

    data: str = setting(MISSING, input_path=True)
    out: str = MISSING
    init: str | None = setting(None, input_path=True)
    init_normalization: str = "keep"
    freeze_encoder: bool = False
    suite: Any = None
    groups: Any = None
    sharing: str = "hard"
    heads: HeadSharing = field(default_factory=HeadSharing)
    seed: int = 0
    device: str = setting("auto", may_change=True)
    compile: str = "auto"
    precision: str = "auto"
    resume: str = "auto"

    model: ModelSize = field(default_factory=ModelSize)
    normalize_obs: bool = True
    q_and_prior: bool = False
    episodic: str = "auto"

    batch_size: int = 1024
    accumulate: int = setting(1, may_change=True)
    parallel: str = setting("auto", may_change=True)
    horizon: HorizonSchedule = field(default_factory=HorizonSchedule)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    finetune: str = "none"
    target: Any = None
    replay: float | None = None
    finetuning: Finetuning = field(default_factory=Finetuning)
    on_error: str = setting("stop", may_change=True)
    data_device: str = setting("auto", may_change=True)
    data_memory: float = setting(DEFAULT_MEMORY / 2**30, may_change=True)

    log_every: int = setting(50, may_change=True)
    diagnose_every: int = 10_000
    save_every: int = setting(5_000, may_change=True)
    keep_last: int = setting(2, may_change=True)
    max_skipped: int = setting(100, may_change=True)
    wandb_project: str | None = setting(None, may_change=True)

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        super().validate()
        self.horizon.validate()
        require_valid("model", self.model)
        Acceleration(self.compile, self.precision).validate()
        require_at_least(self, 1, "batch_size", "accumulate")
        require_at_least(self, 0, "data_memory")
        require_at_least(self, 1, "log_every", "diagnose_every", "save_every", "keep_last")
        require_at_least(self, 1, "max_skipped")
        require_seed(self, "seed")
        require_choice(self, "init_normalization", INIT_NORMALIZATION)
        require_choice(self, "episodic", EPISODIC)
        require_choice(self, "parallel", PARALLEL)
        if self.parallel == "fsdp" and self.compile == "always":
            raise PwmError("compile=always does not go with parallel=fsdp; leave compile out.")
        require_valid("sampling", self.sampling)
        self._require_init()
        self._require_finetuning()
        if self.parallel == "fsdp":
            require_whole_weights(self)
        require_resume(self)
        require_choice(self, "on_error", ON_ERROR)
        require_wandb(self.wandb_project)
        require_data_device(self.data_device, resolve_device(self.device))
        if self.suite is not None:
            task_names(self.suite)
        self._require_groups()
        require_sharing(self)
        require_output(self)
        if self.q_and_prior and self.model.num_q < 2:
            raise PwmError("q_and_prior needs model.num_q of at least 2; it draws two at a time.")

    def from_nothing(self) -> PretrainConfig:
        """These settings without those that need a world model to start from."""
        sampling = replace(self.sampling, surprise=0.0)
        return replace(
            self, freeze_encoder=False, sampling=sampling, finetune="none", target=None
        )  # fmt: skip

    def _require_groups(self) -> None:
        """Raise PwmError unless ``groups`` is none, a number or the path of a file."""
        groups = self.groups
        if groups is None:
            return
        if isinstance(groups, str):
            require_exists(groups)
        elif isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
            raise PwmError(
                f"groups={groups!r} must be a number of groups, at least 1, or a file of groups "
                "that pwm analyze wrote."
            )

    def _require_finetuning(self) -> None:
        """Raise PwmError for settings of fine-tuning that do not fit each other."""
        require_finetuning(self)
        if (self.finetune != "none") != (self.target is not None):
            raise PwmError(
                "finetune= and target= go together: how to fine-tune, and for which tasks; give "
                "both or neither."
            )
        if self.finetune == "none":
            return
        if self.target != "all":
            task_names(self.target)
        if self.init is None:
            raise PwmError(
                f"finetune={self.finetune} needs a world model to start from; give it as init=."
            )
        if self.freeze_encoder:
            raise PwmError(
                f"finetune={self.finetune} says itself what trains; leave freeze_encoder out."
            )
        if self.finetune == "lora" and self.accumulate > 1:
            raise PwmError("finetune=lora does not go with accumulate; leave one of them out.")
        if self.finetuning.per_task and (self.balance not in EVEN or self.aggregate != "mean"):
            raise PwmError(
                "finetuning.per_task=true trains each target as if it were the only one, so there "
                "is nothing to balance; leave balance and aggregate out."
            )

    def _require_init(self) -> None:
        """Raise PwmError for settings that need a world model to start from, or do not fit it."""
        for name, given in (
            ("freeze_encoder=true", self.freeze_encoder),
            (f"sampling.surprise={self.sampling.surprise:g}", self.sampling.surprise),
        ):
            if given and self.init is None:
                raise PwmError(f"{name} is about a world model to start from; give it as init=.")
        if self.freeze_encoder and self.init_normalization == "data":
            raise PwmError(
                "freeze_encoder=true keeps the latents of init=, and init_normalization=data makes "
                "others; leave one of them out."
            )
        if self.freeze_encoder and self.parallel == "fsdp":
            raise PwmError("freeze_encoder=true does not go with parallel=fsdp; use ddp.")


def require_horizons_fit(config: PretrainConfig, suite: Suite) -> None:
    """Raise PwmError if an episode of a task cannot hold the windows that a config asks for."""
    longest = max(config.horizon.lengths)
    for task in suite:
        if task.episode_length < longest:
            raise PwmError(
                f"a horizon of {longest} steps does not fit into the episodes of {task.name}, "
                f"which have {task.episode_length}; lower horizon.lengths."
            )
