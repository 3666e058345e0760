"""``python -m lerobot_policy_pwm FILE.onnx DIRECTORY``: what LeRobot opens of a deployed policy."""

from __future__ import annotations

import sys
from pathlib import Path

from lerobot_policy_pwm.modeling_pwm import PwmPolicy
from lerobot_policy_pwm.processor_pwm import make_pwm_pre_post_processors


def convert(file: str, directory: str) -> None:
    """Write the policy with its configuration and its two pipelines.

    Raises:
        ValueError: if the file is no policy, or the directory exists.
    """
    if Path(directory).exists():
        raise ValueError(f"{directory} exists; give another directory or delete it.")
    policy = PwmPolicy.from_onnx(file)
    policy.save_pretrained(directory)
    for pipeline in make_pwm_pre_post_processors(policy.config):
        pipeline.save_pretrained(directory)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m lerobot_policy_pwm FILE.onnx DIRECTORY")
    try:
        convert(*sys.argv[1:])
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
