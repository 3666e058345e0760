"""LeRobot's steps before and after a policy: a batch of one, the device, and no normalization."""

from __future__ import annotations

from typing import Any

from lerobot.processor import make_default_pre_post_processors

from lerobot_policy_pwm.configuration_pwm import PwmConfig


def make_pwm_pre_post_processors(
    config: PwmConfig, dataset_stats: dict[str, Any] | None = None
) -> tuple[Any, Any]:
    """The two pipelines; what a dataset's statistics are makes no difference."""
    pipelines: tuple[Any, Any] = make_default_pre_post_processors(config, dataset_stats)
    return pipelines
