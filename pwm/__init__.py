"""PWM: policies from multi-task world models by first-order gradients.

The library face: open what the command line made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pwm.core.errors import PwmError
    from pwm.models.actor_critic import Policy, load_policy
    from pwm.models.world_model import WorldModel, load_world_model

__version__ = "0.1.0"
__all__ = ["Policy", "PwmError", "WorldModel", "load_policy", "load_world_model"]

_HOME = {
    "Policy": "pwm.models.actor_critic",
    "load_policy": "pwm.models.actor_critic",
    "PwmError": "pwm.core.errors",
    "WorldModel": "pwm.models.world_model",
    "load_world_model": "pwm.models.world_model",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that simulator workers never pay for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'pwm' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
