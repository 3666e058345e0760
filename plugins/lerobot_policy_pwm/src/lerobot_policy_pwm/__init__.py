"""Policies that ``pwm deploy to=onnx`` wrote, as policies of LeRobot.

LeRobot imports every installed distribution whose name begins with ``lerobot_policy_``, and finds
the three parts of a policy by the names of these modules.
"""

from lerobot_policy_pwm.configuration_pwm import PwmConfig
from lerobot_policy_pwm.modeling_pwm import PwmPolicy
from lerobot_policy_pwm.processor_pwm import make_pwm_pre_post_processors

__all__ = ["PwmConfig", "PwmPolicy", "make_pwm_pre_post_processors"]
