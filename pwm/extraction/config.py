"""Settings of policy extraction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.settings import setting
from pwm.core.suites import get_suite
from pwm.core.validation import (
    require_at_least,
    require_choice,
    require_positive,
    require_resume,
    require_seed,
    require_share,
)
from pwm.data.problems import ON_ERROR
from pwm.models.actor_critic import (
    REWARD_UNITS,
    ActorCriticSize,
)
from pwm.pretraining.learner import LearnerConfig
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.device import resolve_device
from pwm.runtime.metrics import require_wandb
from pwm.runtime.run_dir import require_output


@dataclass
class ActorCriticConfig:
    """What an extraction iteration depends on.

    Attributes:
        iterations: in all; learning rates reach ``lr_final`` at the last.
        batch_size: imagined rollouts a task and iteration.
        horizon: H, their length in decision steps.
        discount, lam: of returns and TD(lambda) targets.
        networks: sizes of actor and critics.
        actor_lr, critic_lr, lr_final, betas: of Adam.
        actor_clip, critic_clip: largest gradient norms, a task.
        critic_passes, critic_minibatches: passes over an iteration's states and parts of a pass;
            PWM makes 8 passes of 4 parts (docs/results/critic-schedule.md).
        scale_values: multiply the critics' outputs by 1 / (1 - discount).
        return_decay: forgetting of the running standard deviation of returns; 1 never forgets.
        detach_actor_input: cut the gradient that reaches earlier steps through the actor's input.
        reward_units: ``symlog`` (what the authors train on) or ``real``.
        clone_weight, clone_weight_final: weight of behaviour cloning beside the normalized return,
            at the first and at the last iteration.
        clone_first: updates that only clone, before the first iteration.
        clone_lr: of Adam at the first of them; it falls to ``lr_final`` at the last.
        clone_best: the share of a task's episodes, the best (:func:`pwm.data.ranking.best_first`),
            that is cloned.
        clone_temperature: clone a row more often the better it turned out, as in advantage-weighted
            regression (:func:`pwm.extraction.advantage_weighting.cloned_rows`); null clones all
            rows alike.
        disagreement_weight: with an ensemble of world models, what a reward loses for each unit of
            the models' standard deviation around its mean.
        real_value_share: weight, 0..1, of recorded transitions in the critics' loss.
        real_value_steps: recorded rewards that such a transition sums before it bootstraps.
    """

    iterations: int = 10_000
    batch_size: int = 512
    horizon: int = 16
    discount: float = 0.99
    lam: float = 0.95
    networks: ActorCriticSize = field(
        default_factory=lambda: ActorCriticSize(actor=[400, 200, 100], critic=[400, 200])
    )
    actor_lr: float = 5e-4
    critic_lr: float = 5e-4
    lr_final: float = 1e-5
    betas: list[float] = field(default_factory=lambda: [0.7, 0.95])
    actor_clip: float = 1.0
    critic_clip: float = 100.0
    critic_passes: int = 1
    critic_minibatches: int = 4
    scale_values: bool = False
    return_decay: float = 1.0
    detach_actor_input: bool = True
    reward_units: str = "symlog"
    clone_weight: float = 0.0
    clone_weight_final: float = 0.0
    clone_first: int = 0
    clone_lr: float = 1e-3
    clone_best: float = 0.5
    clone_temperature: float | None = None
    disagreement_weight: float = 1.0
    real_value_share: float = 0.0
    real_value_steps: int = 1

    @property
    def steps(self) -> int:
        """Updates that only clone and iterations, in all."""
        return self.clone_first + self.iterations

    @property
    def clones_beside(self) -> bool:
        """Whether iterations clone."""
        return bool(self.clone_weight or self.clone_weight_final)

    @property
    def clones(self) -> bool:
        """Whether anything is cloned."""
        return self.clones_beside or self.clone_first > 0

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_choice(self, "reward_units", REWARD_UNITS)
        require_at_least(self, 1, "iterations", "batch_size", "horizon", "critic_minibatches")
        require_at_least(self, 1, "real_value_steps")
        require_at_least(self, 0, "critic_passes", "clone_first")
        require_at_least(self, 0, "clone_weight", "clone_weight_final")
        require_at_least(self, 0, "disagreement_weight")
        require_at_least(self, 0, "actor_lr", "critic_lr", "clone_lr", "lr_final")
        require_positive(self, "actor_clip", "critic_clip", "return_decay", "clone_best")
        require_share(self, "discount", "lam", "return_decay", "clone_best", "real_value_share")
        if self.clone_temperature is not None:
            require_positive(self, "clone_temperature")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise PwmError(f"betas={self.betas} must be two numbers of at least 0 and below 1.")
        if self.scale_values and self.discount == 1:
            raise PwmError(
                "scale_values needs a discount below 1, since it divides by 1 - discount."
            )
        self.networks.validate()
        samples = self.batch_size * self.horizon
        if samples % self.critic_minibatches:
            raise PwmError(
                f"critic_minibatches={self.critic_minibatches} must divide batch_size x horizon "
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
        out: gets one policy directory a task.
        tasks: a list, a suite's name, or null for all tasks of the world model.
        init: what an earlier extraction with the same networks wrote: its actors and critics are
            begun with, in the place of random ones. Null begins anew.
        ensemble: further world models of the same suite, such as the same pretraining with other
            seeds gives, in which the same actions are imagined: a reward is the mean over all
            models, minus ``learner.disagreement_weight`` times their standard deviation.
        pool: start states a task, drawn once from its episodes.
        group_size: tasks learned at once; null for as many as the memory holds.
        on_error: what to do with bad data: ``stop``, or ``skip`` to leave them out and count them.
        compile, precision: see :class:`pwm.runtime.acceleration.Acceleration`.
    """

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
    group_size: int | None = setting(None, may_change=True)
    on_error: str = setting("stop", may_change=True)
    log_every: int = setting(20, may_change=True)
    save_every: int = setting(500, may_change=True)
    keep_last: int = setting(2, may_change=True)
    wandb_project: str | None = setting(None, may_change=True)

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_seed(self, "seed")
        require_at_least(self, 1, "pool", "log_every", "save_every", "keep_last")
        if self.group_size is not None:
            require_at_least(self, 1, "group_size")
        Acceleration(self.compile, self.precision).validate()
        require_resume(self)
        require_choice(self, "on_error", ON_ERROR)
        require_wandb(self.wandb_project)
        resolve_device(self.device)
        if self.tasks is not None:
            get_suite(self.tasks)
        self.learner.validate()
        require_at_least(self, 1, "finetune.batch_size")
        self.finetune.learner.validate()
        require_output(self)

    def as_job(self) -> ExtractConfig:
        """These settings for one of several jobs, which has some of the tasks."""
        return self
