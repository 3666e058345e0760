"""What LeRobot keeps of a policy in ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig


def _as_given() -> dict[str, NormalizationMode]:
    return dict.fromkeys(("STATE", "ENV", "ACTION"), NormalizationMode.IDENTITY)


@PreTrainedConfig.register_subclass("pwm")
@dataclass
class PwmConfig(PreTrainedConfig):
    """A deployed policy: raw observations go in, actions in the environment's units come out.

    Attributes:
        program_bytes: the size of its ONNX model.
        task: the name of its task.
        normalization_mapping: LeRobot normalizes nothing, since the ONNX model does.
    """

    program_bytes: int = 0
    task: str = ""
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_as_given)

    def validate_features(self) -> None:
        """Raise ValueError unless there is one state to observe, and an action."""
        if self.robot_state_feature is None or self.action_feature is None:
            raise ValueError(
                "a policy of pwm takes observation.state and gives action; input_features has "
                f"{sorted(self.input_features or {})}, output_features "
                f"{sorted(self.output_features or {})}."
            )

    @property
    def observation_delta_indices(self) -> None:
        """It acts on the present observation alone."""

    @property
    def action_delta_indices(self) -> None:
        """It gives one action."""

    @property
    def reward_delta_indices(self) -> None:
        """It needs no reward."""

    def get_optimizer_preset(self) -> None:
        """Nothing here is trained."""

    def get_scheduler_preset(self) -> None:
        """Nothing here is trained."""
