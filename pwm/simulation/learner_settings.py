"""What the settings of every agent that learns while it collects have in common."""

from __future__ import annotations

from typing import Protocol

from pwm.core.errors import PwmError
from pwm.core.validation import require_share


class LearnerSettings(Protocol):
    """The settings that :func:`require_networks_and_targets` reads."""

    tau: float
    net_arch: list[int]
    gamma: float | None


def require_networks_and_targets(config: LearnerSettings) -> None:
    """Raise PwmError for a tau, layer widths or a discount that cannot work."""
    require_share(config, "tau")
    if not config.net_arch or min(config.net_arch) < 1:
        raise PwmError(f"net_arch={config.net_arch} must be widths of at least 1, such as [256].")
    if config.gamma is not None and not 0 <= config.gamma < 1:
        raise PwmError(f"gamma={config.gamma} must be at least 0 and below 1, or null.")
