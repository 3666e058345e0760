"""The methods that can be compared, by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from pwm.core.errors import PwmError
from pwm.core.validation import nearest, require_valid
from pwm.locomotion.baseline_config import PpoConfig, SacConfig
from pwm.locomotion.batched_simulation import BatchedSimulation
from pwm.locomotion.learner import Learner
from pwm.locomotion.online import OnlineConfig, OnlinePwm
from pwm.locomotion.shac import Shac, ShacConfig

METHODS = ("pwm", "shac", "ppo", "sac")
LABELS = {"pwm": "PWM", "shac": "SHAC", "ppo": "PPO", "sac": "SAC"}


@dataclass
class MethodSettings:
    """Settings of every method.

    Attributes:
        pwm: world model and policy together, by gradients through the model.
        shac: gradients through the simulator.
        ppo: the policy gradient of Stable-Baselines3.
        sac: the soft actor-critic of Stable-Baselines3.
    """

    pwm: OnlineConfig = field(default_factory=OnlineConfig)
    shac: ShacConfig = field(default_factory=ShacConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    sac: SacConfig = field(default_factory=SacConfig)

    def of(self, method: str) -> OnlineConfig | ShacConfig | PpoConfig | SacConfig:
        """Those of one method."""
        found: OnlineConfig | ShacConfig | PpoConfig | SacConfig = getattr(self, method)
        return found

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        for name in METHODS:
            require_valid(name, self.of(name))


def require_methods(names: list[str]) -> None:
    """Raise PwmError for a method that is unknown, named twice, or not installed."""
    if not names:
        raise PwmError(f"no method was named; methods= takes some of {', '.join(METHODS)}.")
    for name in names:
        if name not in METHODS:
            raise PwmError(
                f"there is no method {name}{nearest(name, METHODS) or ';'} "
                f"methods= takes some of {', '.join(METHODS)}."
            )
    if len(set(names)) < len(names):
        raise PwmError("a method is named twice in methods=; name each once.")
    if {"ppo", "sac"} & set(names):
        try:
            import stable_baselines3  # noqa: F401
        except ImportError as error:
            raise PwmError(
                "ppo and sac need Stable-Baselines3; install it with "
                "pip install 'pwm-worldmodels[locomotion]', or leave them out of methods=."
            ) from error


def make_learner(
    method: str,
    simulation: BatchedSimulation,
    settings: MethodSettings,
    total_steps: int,
    seed: int,
) -> Learner:
    """The learner of a method in a simulation of as many environments as its settings say."""
    if method == "pwm":
        return OnlinePwm(simulation, settings.pwm, total_steps, seed)
    if method == "shac":
        return Shac(simulation, settings.shac, total_steps, seed)
    from pwm.locomotion.baselines import make_ppo, make_sac

    if method == "ppo":
        return make_ppo(simulation, settings.ppo, total_steps, seed)
    return make_sac(simulation, settings.sac, total_steps, seed)
