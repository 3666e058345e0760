"""Settings of what keeps policies where data and models know: prior, Q functions, ensemble."""

from __future__ import annotations

from dataclasses import dataclass, field

from pwm.core.errors import PwmError
from pwm.core.validation import require_at_least, require_positive, require_share
from pwm.models.actor_critic import require_widths


@dataclass
class PriorConfig:
    """What holds the actors near those that iterations begin with, at imagined states.

    The actors after cloning (``bc.warmup_steps``), or those of an earlier extraction (``init=``).

    Attributes:
        weight: of the mean squared distance of actions, per entry, beside the normalized return; 0
            for no prior.
        target: the distance that is to be held: the weight of a task, begun with ``weight``, falls
            while its policy is nearer, and rises while it is farther away. Null keeps the weight.
        relative_target: in the place of ``target``, a share of a task's spread: the mean squared
            distance, per entry, of recorded actions from the prior's in the demonstrations. Where
            the data hardly stray, as those of a gait that falls otherwise, the distance is small.
    """

    weight: float = 0.0
    target: float | None = 0.01
    relative_target: float | None = None

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 0, "weight")
        for name in ("target", "relative_target"):
            if getattr(self, name) is not None:
                require_positive(self, name)
        if self.relative_target is not None and not self.weight:
            raise PwmError(
                f"relative_target={self.relative_target} is of a prior, and weight=0 has none; "
                "give weight=10."
            )


@dataclass
class QConfig:
    """Q functions of recorded transitions, whose least value ends imagined rollouts.

    Attributes:
        members: of a task's ensemble; 0 for none, and then the critics, which learn in
            imagination, end rollouts.
        hidden: hidden layer widths.
        warmup_steps: updates of the Q functions alone, after cloning, before the first iteration.
        updates: of an iteration.
        batch_size: recorded transitions per task and update.
        pool: recorded transitions per task, drawn once. Each sums ``critic.real_steps`` rewards.
        lr: of Adam.
        tau: how far the slow copies, which give the targets, go at every update.
        expectile: learn a state value beside them, this expectile of the slow copies' least over
            recorded actions (IQL, Kostrikov et al. 2022), which ends targets and imagined rollouts
            in the place of Q at the actors' mode; above 0.5 it leans to the better actions. Null
            for none.
    """

    members: int = 0
    hidden: list[int] = field(default_factory=lambda: [256, 256])
    warmup_steps: int = 2000
    updates: int = 2
    batch_size: int = 256
    pool: int = 131_072
    lr: float = 1e-3
    tau: float = 0.05
    expectile: float | None = None

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 0, "members", "warmup_steps", "lr")
        if self.expectile is not None:
            self._require_expectile(self.expectile)
        require_at_least(self, 1, "updates", "batch_size", "pool")
        require_positive(self, "tau")
        require_share(self, "tau")
        require_widths(self, "hidden")

    def _require_expectile(self, expectile: float) -> None:
        if not 0 < expectile < 1:
            raise PwmError(f"expectile={expectile} must be above 0 and below 1.")
        if not self.members:
            raise PwmError(
                f"expectile={expectile} is of Q functions, and members=0 has none; give members=2."
            )


@dataclass
class EnsembleConfig:
    """How the predictions of an ensemble of world models are taken.

    Attributes:
        uncertainty_coef: what a reward loses for each unit of the models' standard deviation
            around its mean.
        truncate_above: end imagined rollouts before a step on which the models disagree more than
            so many times what they do on average over the task's recorded states and actions; null
            for never. A multiple of that, since it does not depend on the scale of rewards, needs
            no state, and stays where it is: of what is imagined, a quantile would always cut the
            same share, however far the policies go.
    """

    uncertainty_coef: float = 1.0
    truncate_above: float | None = None

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 0, "uncertainty_coef")
        if self.truncate_above is not None:
            require_positive(self, "truncate_above")
