"""Settings of policy extraction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.renamed_settings import refuse_old_names
from pwm.core.settings import Choices, setting
from pwm.core.suites import task_names
from pwm.core.validation import (
    require_at_least,
    require_choice,
    require_positive,
    require_resume,
    require_seed,
    require_share,
    require_valid,
)
from pwm.data.problems import ON_ERROR
from pwm.extraction.estimate_settings import ScoreEstimateConfig
from pwm.extraction.offline_settings import EnsembleConfig, PriorConfig, QConfig
from pwm.models.actor_critic import (
    REWARD_UNITS,
    ActorCriticSize,
)
from pwm.pretraining.learner import LearnerConfig
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.device import resolve_device
from pwm.runtime.run_dir import require_output
from pwm.runtime.wandb_run import require_wandb


@dataclass
class OptimConfig:
    """How actors and critics take steps.

    Attributes:
        actor_lr, critic_lr, lr_final, betas: of Adam; rates fall linearly to ``lr_final``.
        actor_grad_norm, critic_grad_norm: largest gradient norms, per task.
    """

    actor_lr: float = 5e-4
    critic_lr: float = 5e-4
    lr_final: float = 1e-5
    betas: list[float] = field(default_factory=lambda: [0.7, 0.95])
    actor_grad_norm: float = 1.0
    critic_grad_norm: float = 100.0

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 0, "actor_lr", "critic_lr", "lr_final")
        require_positive(self, "actor_grad_norm", "critic_grad_norm")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise PwmError(f"betas={self.betas} must be two numbers of at least 0 and below 1.")


@dataclass
class CriticConfig:
    """What critics learn from, and how often.

    Attributes:
        iterations, batches: passes over an iteration's imagined states, and parts of a pass; PWM
            makes 8 passes of 4 parts (docs/results/critic-schedule.md).
        scale_values: multiply the critics' outputs by 1 / (1 - discount).
        real_ratio: weight, 0..1, of recorded transitions in the critics' loss.
        real_steps: recorded rewards that such a transition sums before it bootstraps.
    """

    iterations: int = 1
    batches: int = 4
    scale_values: bool = False
    real_ratio: float = 0.0
    real_steps: int = 1

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 1, "iterations", "batches", "real_steps")
        require_share(self, "real_ratio")


@dataclass
class BCConfig:
    """Behavior cloning of each task's best episodes.

    Attributes:
        weight, weight_final: beside the normalized return, at the first and the last iteration.
        warmup_steps: updates that only clone, before the first iteration.
        lr: of Adam at the first of them; it falls to ``optim.lr_final`` at the last.
        top_fraction: the share of a task's episodes, the best
            (:func:`pwm.data.ranking.best_first`), that is cloned.
        newest_fraction: the share of a task's episodes, those recorded last, of which
            ``top_fraction`` is taken: where an agent learned until its last episodes, as
            ``learning_episodes`` of :class:`pwm.simulation.agents_config.AgentsConfig` has it, they
            are of one policy, and not the luckiest of all.
        awr_temperature: clone a row more often the better it turned out, as in advantage-weighted
            regression (:func:`pwm.extraction.advantage_weighting.cloned_rows`); null clones all
            rows alike.
    """

    weight: float = 0.0
    weight_final: float = 0.0
    warmup_steps: int = 0
    lr: float = 1e-3
    top_fraction: float = 0.5
    newest_fraction: float = 1.0
    awr_temperature: float | None = None

    @property
    def in_iterations(self) -> bool:
        """Whether iterations clone."""
        return bool(self.weight or self.weight_final)

    @property
    def needs_demonstrations(self) -> bool:
        """Whether anything is cloned."""
        return self.in_iterations or self.warmup_steps > 0

    def faded(self, factor: float) -> BCConfig:
        """These settings with the weights multiplied by a factor."""
        return replace(self, weight=self.weight * factor, weight_final=self.weight_final * factor)

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 0, "weight", "weight_final", "warmup_steps", "lr")
        require_positive(self, "top_fraction", "newest_fraction")
        require_share(self, "top_fraction", "newest_fraction")
        if self.awr_temperature is not None:
            require_at_least(self, 1e-6, "awr_temperature")  # below it quotients overflow


@refuse_old_names
@dataclass
class ActorCriticConfig:
    """What an extraction iteration depends on.

    Attributes:
        iterations: in all; learning rates reach ``optim.lr_final`` at the last.
        batch_size: imagined rollouts per task and iteration.
        horizon: H, their length in decision steps.
        discount, lam: of returns and TD(lambda) targets.
        networks: sizes of actor and critics.
        optim: how actors and critics take steps.
        critic: what critics learn from.
        bc: behavior cloning beside the normalized return, and before it.
        prior: what holds the actors near those that iterations begin with.
        q: Q functions of recorded transitions.
        ensemble: how an ensemble of world models is taken.
        return_decay: forgetting of the running standard deviation of returns; 1 never forgets.
        detach_actor_input: cut the gradient that reaches earlier steps through the actor's input.
        reward_units: ``symlog`` (what the authors train on) or ``real``.
    """

    iterations: int = 10_000
    batch_size: int = 512
    horizon: int = 16
    discount: float = 0.99
    lam: float = 0.95
    networks: ActorCriticSize = field(
        default_factory=lambda: ActorCriticSize(actor=[400, 200, 100], critic=[400, 200])
    )
    optim: OptimConfig = field(default_factory=OptimConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    bc: BCConfig = field(default_factory=BCConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    q: QConfig = field(default_factory=QConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    return_decay: float = 1.0
    detach_actor_input: bool = True
    reward_units: str = "symlog"

    @property
    def warmup_steps(self) -> int:
        """Steps before the first iteration: updates that only clone, and then of Q alone."""
        return self.bc.warmup_steps + (self.q.warmup_steps if self.q.members else 0)

    @property
    def steps(self) -> int:
        """Those and the iterations, in all."""
        return self.warmup_steps + self.iterations

    @property
    def value_scale(self) -> float:
        """What the critics' outputs are multiplied by."""
        return 1 / (1 - self.discount) if self.critic.scale_values else 1.0

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_choice(self, "reward_units", REWARD_UNITS)
        require_at_least(self, 1, "iterations", "batch_size", "horizon")
        require_positive(self, "return_decay")
        require_share(self, "discount", "lam", "return_decay")
        for block in ("networks", "optim", "critic", "bc", "prior", "q", "ensemble"):
            require_valid(block, getattr(self, block))
        if self.critic.scale_values and self.discount == 1:
            raise PwmError(
                "critic.scale_values needs a discount below 1, since it divides by 1 - discount."
            )
        samples = self.batch_size * self.horizon
        if samples % self.critic.batches:
            raise PwmError(
                f"critic.batches={self.critic.batches} must divide batch_size x horizon "
                f"= {samples}."
            )


@dataclass
class FinetuneConfig:
    """Updating the world model on the task's own data while its policy is learned.

    Attributes:
        enabled: off by default; tasks are then extracted one by one, each with its own copy.
        batch_size: windows an update; one update an iteration.
        learner: the update's settings.
    """

    enabled: bool = False
    batch_size: int = 256
    learner: LearnerConfig = field(default_factory=lambda: LearnerConfig(lr=1e-4, lr_final=1e-5))


@dataclass
class ExtractConfig:
    """Settings of ``pwm extract``.

    Attributes:
        checkpoint: a world model: a pretraining run or one checkpoint.
        data: the episode store that start states come from.
        out: gets one policy directory per task.
        tasks: a suite's name, tasks joined with commas or in a list, or null for all tasks of the
            world model.
        init: what an earlier extraction with the same networks wrote: its actors and critics are
            begun with, in the place of random ones. Null begins anew.
        ensemble: further world models of the same suite, such as the same pretraining with other
            seeds gives, in which the same actions are imagined: a reward is the mean over all
            models, minus ``learner.ensemble.uncertainty_coef`` times their standard deviation. A
            world model that was pretrained with ``heads.members`` brings its own further heads.
        pool: start states per task, drawn once from its episodes.
        expected_score: say in the end what the policies are expected to score, from the data.
        select: which policies are saved: ``last``, or the best of those before the first iteration
            and after every ``estimate_every``: by ``expected_score``, or by what they score in the
            ``simulator``.
        select_episodes: per task and choice of ``select=simulator``, always the same.
        estimate: how expected scores are found.
        group_size: tasks learned at once; null for as many as the memory holds.
        on_error: what to do with bad data: ``stop``, or ``skip`` to leave them out and count them.
        compile, precision: see :class:`pwm.runtime.acceleration.Acceleration`.
    """

    presets: ClassVar[Choices] = {"launcher": "local", "extract": "standard"}

    checkpoint: str = setting(MISSING, input_path=True)
    data: str = setting(MISSING, input_path=True)
    out: str = MISSING
    tasks: Any = setting(None, may_change=True)
    init: str | None = setting(None, input_path=True)
    ensemble: list[str] = setting(default_factory=list, input_path=True)
    seed: int = 0
    device: str = setting("auto", may_change=True)
    compile: str = "auto"
    precision: str = "auto"
    resume: str = "auto"
    learner: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    pool: int = 16_384
    expected_score: bool = setting(False, may_change=True)
    select: str = "last"
    select_episodes: int = 10
    estimate_every: int = 500
    estimate: ScoreEstimateConfig = field(default_factory=ScoreEstimateConfig)
    group_size: int | None = setting(None, may_change=True)
    on_error: str = setting("stop", may_change=True)
    log_every: int = setting(20, may_change=True)
    save_every: int = setting(500, may_change=True)
    keep_last: int = setting(2, may_change=True)
    wandb_project: str | None = setting(None, may_change=True)

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_seed(self, "seed")
        require_at_least(self, 1, "pool", "log_every", "save_every", "keep_last", "estimate_every")
        require_choice(self, "select", ("last", "expected_score", "simulator"))
        require_at_least(self, 1, "select_episodes")
        require_valid("estimate", self.estimate)
        if self.estimates and self.finetune.enabled:
            raise PwmError(
                "expected scores are of latents that do not change; leave finetune.enabled out, or "
                "run `pwm estimate` on the policies afterwards."
            )
        if self.select != "last" and self.finetune.enabled:
            raise PwmError(
                f"select={self.select} keeps policies, and finetune.enabled changes the latents "
                "that they read; leave one of them out."
            )
        if self.group_size is not None:
            require_at_least(self, 1, "group_size")
        Acceleration(self.compile, self.precision).validate()
        require_resume(self)
        require_choice(self, "on_error", ON_ERROR)
        require_wandb(self.wandb_project)
        resolve_device(self.device)
        if self.tasks is not None:
            task_names(self.tasks)
        require_valid("learner", self.learner)
        if self.learner.prior.weight and not self.learner.bc.warmup_steps and self.init is None:
            raise PwmError(
                f"learner.prior.weight={self.learner.prior.weight} holds policies near those that "
                "iterations begin with, which are random here; clone first with "
                "learner.bc.warmup_steps=2000, or begin with policies by init=."
            )
        require_at_least(self, 1, "finetune.batch_size")
        require_valid("finetune.learner", self.finetune.learner)
        require_output(self)

    @property
    def judges(self) -> bool:
        """Whether policies are scored on the way or in the end."""
        return self.estimates or self.select != "last"

    @property
    def estimates(self) -> bool:
        """Whether expected scores are asked for."""
        return self.expected_score or self.select == "expected_score"

    def as_job(self) -> ExtractConfig:
        """These settings for one of several jobs, which has some of the tasks."""
        return self
