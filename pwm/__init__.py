"""PWM: policies from multi-task world models by first-order gradients.

The library face. Everything here is imported on first use, so that ``import pwm`` is quick and
simulator workers never pay for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pwm.core.errors import PwmError
    from pwm.core.suites import Suite, Task, get_suite, get_task
    from pwm.data.episode import Episode, normalize_actions
    from pwm.data.store import EpisodeStore
    from pwm.evaluation.evaluate import EvaluateConfig, evaluate
    from pwm.evaluation.played_choice import extract
    from pwm.extraction.config import ExtractConfig
    from pwm.models.actor_critic import load_critic
    from pwm.models.policy import Policy, load_policy
    from pwm.models.world_model import WorldModel, load_world_model
    from pwm.pretraining.config import PretrainConfig
    from pwm.pretraining.pretrain import pretrain
    from pwm.simulation.collect import collect
    from pwm.simulation.collect_config import CollectConfig

__version__ = "0.1.0"

_HOME = {
    "CollectConfig": "pwm.simulation.collect_config",
    "Episode": "pwm.data.episode",
    "EpisodeStore": "pwm.data.store",
    "EvaluateConfig": "pwm.evaluation.evaluate",
    "ExtractConfig": "pwm.extraction.config",
    "Policy": "pwm.models.policy",
    "PretrainConfig": "pwm.pretraining.config",
    "PwmError": "pwm.core.errors",
    "Suite": "pwm.core.suites",
    "Task": "pwm.core.suites",
    "WorldModel": "pwm.models.world_model",
    "collect": "pwm.simulation.collect",
    "evaluate": "pwm.evaluation.evaluate",
    "extract": "pwm.evaluation.played_choice",
    "get_suite": "pwm.core.suites",
    "get_task": "pwm.core.suites",
    "load_critic": "pwm.models.actor_critic",
    "load_policy": "pwm.models.policy",
    "load_world_model": "pwm.models.world_model",
    "normalize_actions": "pwm.data.episode",
    "pretrain": "pwm.pretraining.pretrain",
}

__all__ = [
    "CollectConfig",
    "Episode",
    "EpisodeStore",
    "EvaluateConfig",
    "ExtractConfig",
    "Policy",
    "PretrainConfig",
    "PwmError",
    "Suite",
    "Task",
    "WorldModel",
    "collect",
    "evaluate",
    "extract",
    "get_suite",
    "get_task",
    "load_critic",
    "load_policy",
    "load_world_model",
    "normalize_actions",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    """Import on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'pwm' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """All public names, for completion."""
    return sorted({*globals(), *__all__})
