"""PWM: policies from multi-task world models by first-order gradients.

The library's face: open what the command line made, read and write episodes, look tasks up, and
call the four verbs ``collect``, ``pretrain``, ``extract`` and ``evaluate`` with their configs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pwm.core.errors import PwmError
    from pwm.core.suites import Suite, Task, get_suite, get_task
    from pwm.data.store import Episode, EpisodeStore
    from pwm.evaluation.evaluate import EvaluateConfig, evaluate
    from pwm.extraction.extract import ExtractConfig, extract
    from pwm.models.actor_critic import Policy, load_critic, load_policy
    from pwm.models.world_model import WorldModel, load_world_model
    from pwm.pretraining.pretrain import PretrainConfig, pretrain
    from pwm.simulation.collect import CollectConfig, collect

__version__ = "0.1.0"
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
    "pretrain",
]

_HOME = {
    "CollectConfig": "pwm.simulation.collect",
    "Episode": "pwm.data.store",
    "EpisodeStore": "pwm.data.store",
    "EvaluateConfig": "pwm.evaluation.evaluate",
    "ExtractConfig": "pwm.extraction.extract",
    "Policy": "pwm.models.actor_critic",
    "PretrainConfig": "pwm.pretraining.pretrain",
    "PwmError": "pwm.core.errors",
    "Suite": "pwm.core.suites",
    "Task": "pwm.core.suites",
    "WorldModel": "pwm.models.world_model",
    "collect": "pwm.simulation.collect",
    "evaluate": "pwm.evaluation.evaluate",
    "extract": "pwm.extraction.extract",
    "get_suite": "pwm.core.suites",
    "get_task": "pwm.core.suites",
    "load_critic": "pwm.models.actor_critic",
    "load_policy": "pwm.models.actor_critic",
    "load_world_model": "pwm.models.world_model",
    "pretrain": "pwm.pretraining.pretrain",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that simulator workers never pay for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'pwm' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
