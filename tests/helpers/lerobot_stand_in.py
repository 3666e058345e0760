"""The names of LeRobot 0.6.1 that its plugin uses, for machines without it.

What the plugin gives to them is kept, and nothing is done with it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch


class FeatureType(Enum):
    STATE = "STATE"
    ACTION = "ACTION"


class NormalizationMode(Enum):
    IDENTITY = "IDENTITY"


@dataclass
class PolicyFeature:
    type: FeatureType
    shape: tuple[int, ...]


@dataclass
class PreTrainedConfig:
    known: ClassVar[dict[str, type]] = {}
    input_features: dict[str, PolicyFeature] | None = field(default_factory=dict)
    output_features: dict[str, PolicyFeature] | None = field(default_factory=dict)
    device: str | None = None

    @classmethod
    def register_subclass(cls, name: str) -> Any:
        return lambda subclass: cls.known.setdefault(name, subclass)

    @property
    def robot_state_feature(self) -> PolicyFeature | None:
        return (self.input_features or {}).get("observation.state")

    @property
    def action_feature(self) -> PolicyFeature | None:
        return (self.output_features or {}).get("action")


class PreTrainedPolicy(torch.nn.Module):
    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config


def install(patch: pytest.MonkeyPatch) -> None:
    """Put them where the plugin imports them from."""
    contents: dict[str, dict[str, Any]] = {
        "lerobot": {},
        "lerobot.configs": {
            kind.__name__: kind
            for kind in (FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig)
        },
        "lerobot.policies": {},
        "lerobot.policies.pretrained": {"PreTrainedPolicy": PreTrainedPolicy},
        "lerobot.processor": {"make_default_pre_post_processors": lambda *given: given},
        "lerobot.utils": {},
        "lerobot.utils.constants": {"ACTION": "action", "OBS_STATE": "observation.state"},
    }
    for name, names in contents.items():
        module = ModuleType(name)
        vars(module).update(names)
        patch.setitem(sys.modules, name, module)
