"""The policy: an ONNX model that lies in LeRobot's ``model.safetensors`` as bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from lerobot_policy_pwm.configuration_pwm import PwmConfig


class PwmPolicy(PreTrainedPolicy):
    """A policy that acts and does not learn."""

    config_class = PwmConfig
    name = "pwm"

    def __init__(self, config: PwmConfig, *_: Any, **__: Any) -> None:
        super().__init__(config)
        config.validate_features()
        self.register_buffer("program", torch.zeros(config.program_bytes, dtype=torch.uint8))
        self._session: onnxruntime.InferenceSession | None = None

    @classmethod
    def from_onnx(cls, path: str | Path) -> Self:
        """The policy of a file that ``pwm deploy to=onnx`` wrote.

        Raises:
            ValueError: if it is another ONNX model, such as a part of a world model.
        """
        program = Path(path).read_bytes()
        facts = json.loads(_metadata(program).get("pwm.json", "{}"))
        if facts.get("function") != "action":
            raise ValueError(
                f"{path} is no policy; give a file of `pwm deploy policy=... to=onnx`."
            )
        observation, action = facts["observation"]["size"], facts["action"]["size"]
        config = PwmConfig(
            device="cpu",
            program_bytes=len(program),
            task=facts["task"]["name"],
            input_features={OBS_STATE: PolicyFeature(FeatureType.STATE, (observation,))},
            output_features={ACTION: PolicyFeature(FeatureType.ACTION, (action,))},
        )
        policy = cls(config)
        policy.program.copy_(torch.frombuffer(bytearray(program), dtype=torch.uint8))
        return policy.eval()

    def select_action(self, batch: dict[str, Tensor], **_: Any) -> Tensor:
        """Actions (batch, action_dim) at the states (batch, obs_dim) of ``observation.state``.

        Raises:
            ValueError: if a state is NaN or infinite.
        """
        state = batch[OBS_STATE]
        obs = state.detach().to("cpu", torch.float32).numpy()
        if not np.isfinite(obs).all():
            raise ValueError("observation.state is NaN or infinite; there is no action for it.")
        if self._session is None:
            self._session = _session(self.program.cpu().numpy().tobytes())
        (action,) = self._session.run(None, {"obs": obs})
        return torch.from_numpy(action).to(state.device)

    def predict_action_chunk(self, batch: dict[str, Tensor], **_: Any) -> Tensor:
        """One action as a chunk (batch, 1, action_dim)."""
        return self.select_action(batch)[:, None]

    def reset(self) -> None:
        """Nothing is kept from one step to the next."""

    def get_optim_params(self) -> dict[str, Any]:
        """Nothing here is trained."""
        return {}

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any] | None]:
        """Raise NotImplementedError: learning is pwm's part."""
        raise NotImplementedError(
            "a deployed policy of pwm does not learn in LeRobot; convert the data with "
            "`pwm convert`, learn with `pwm pretrain` and `pwm extract`, and deploy the result."
        )


def _session(program: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # on networks of this size threads wait for each other
    return onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])


def _metadata(program: bytes) -> dict[str, str]:
    found: dict[str, str] = _session(program).get_modelmeta().custom_metadata_map
    return found
