"""Settings of the baselines, apart from Stable-Baselines3, which may not be installed."""

from __future__ import annotations

from dataclasses import dataclass, field

from pwm.core.errors import PwmError
from pwm.core.validation import require_at_least, require_positive, require_share
from pwm.models.actor_critic import require_widths


@dataclass
class PpoConfig:
    """Settings of PPO.

    Attributes:
        num_envs: environments side by side.
        horizon: steps of each between updates.
        batch_size: of a gradient step; it divides ``num_envs`` x ``horizon``.
        epochs: passes over what was collected.
        lr: of Adam.
        discount, lam: of returns and generalized advantage estimation.
        initial_std: standard deviation of actions at the beginning; actions lie in [-1, 1].
        net_arch: hidden layer widths of policy and value.
    """

    num_envs: int = 64
    horizon: int = 32
    batch_size: int = 512
    epochs: int = 5
    lr: float = 3e-4
    discount: float = 0.99
    lam: float = 0.95
    initial_std: float = 1.0
    net_arch: list[int] = field(default_factory=lambda: [256, 256])

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 1, "num_envs", "horizon", "epochs")
        require_at_least(self, 2, "batch_size")
        require_positive(self, "lr", "initial_std")
        require_share(self, "discount", "lam")
        require_widths(self, "net_arch")
        if self.num_envs * self.horizon % self.batch_size:
            raise PwmError(
                f"batch_size={self.batch_size} must divide num_envs x horizon "
                f"= {self.num_envs * self.horizon}."
            )


@dataclass
class SacConfig:
    """Settings of SAC.

    Attributes:
        num_envs: environments side by side.
        updates: gradient steps after a step of all environments.
        first_steps: with random actions, all environments together.
        batch_size: transitions of a gradient step.
        replay: transitions that are kept.
        lr: of Adam.
        discount, tau: of the targets.
        net_arch: hidden layer widths of actor and critics.
    """

    num_envs: int = 16
    updates: int = 8
    first_steps: int = 2048
    batch_size: int = 256
    replay: int = 1_000_000
    lr: float = 3e-4
    discount: float = 0.99
    tau: float = 0.005
    net_arch: list[int] = field(default_factory=lambda: [256, 256])

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 1, "num_envs", "updates", "first_steps", "batch_size", "replay")
        require_positive(self, "lr", "tau")
        require_share(self, "discount", "tau")
        require_widths(self, "net_arch")
