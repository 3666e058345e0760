"""PWM: policies from multi-task world models by first-order gradients.

The library face: open what the command line made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pwm.actor_critic import Policy, load_policy
    from pwm.errors import PwmError
    from pwm.world_model import WorldModel, load_world_model

__version__ = "0.1.0"
__all__ = ["Policy", "PwmError", "WorldModel", "load_policy", "load_world_model"]

_HOME = {
    "Policy": "pwm.actor_critic",
    "load_policy": "pwm.actor_critic",
    "PwmError": "pwm.errors",
    "WorldModel": "pwm.world_model",
    "load_world_model": "pwm.world_model",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that simulator workers never pay for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'pwm' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
