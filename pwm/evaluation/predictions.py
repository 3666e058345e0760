"""What a world model predicts that a policy will do from an observation on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pwm.core.errors import PwmError
from pwm.evaluation.mppi_guides import require_same_encoder
from pwm.extraction.config import ActorCriticConfig
from pwm.extraction.imagination import Imagination
from pwm.models.actor_critic import TaskCritic
from pwm.models.math import survival
from pwm.models.policy import Policy
from pwm.models.policy_records import extracted_from
from pwm.models.world_model import WorldModel, load_world_model
from pwm.runtime.checkpoint import is_checkpoint
from pwm.runtime.grouped import is_grouped


class Prediction(NamedTuple):
    """H imagined decision steps from an observation on."""

    rewards: np.ndarray  # (H,), in the environment's units
    values: np.ndarray | None  # (H+1,), the critic's, from the observation on; None without critic


class Predictor:
    """Imagines a policy's next steps in the world model that it was extracted from.

    Args:
        model: the world model.
        policy: acts by its most likely actions.
        critic: the policy's, or None.
        horizon: H, in decision steps.

    Raises:
        PwmError: if the policy does not read this world model's latents.
    """

    def __init__(
        self, model: WorldModel, policy: Policy, critic: TaskCritic | None, horizon: int
    ) -> None:
        require_same_encoder(model, policy)
        self._model, self._policy, self._critic = model, policy, critic
        self._task = torch.tensor([model.suite.id(policy.task.name)])
        config = ActorCriticConfig(reward_units="real")
        self._imagination = Imagination(model, self._task, config)
        self._noise = torch.zeros(horizon, 1, 1, model.suite.action_dim)  # and none is added

    @torch.no_grad()
    def __call__(self, obs: np.ndarray) -> Prediction:
        """The prediction from an observation (obs_dim,)."""
        padded = torch.zeros(1, self._model.suite.obs_dim)
        padded[0, : len(obs)] = torch.as_tensor(obs)
        start = self._model.encode(padded, self._task).unsqueeze(0)
        imagined = self._imagination.roll_out(self._act, start, self._noise)
        rewards, values = imagined.rewards, None
        if imagined.continuation is not None:
            rewards = rewards * survival(imagined.continuation)[:-1]
        if self._critic is not None:
            values = self._critic.values(imagined.latents.flatten(0, 1).transpose(0, 1))
            values = values.amin(1).flatten().numpy()
        return Prediction(rewards.flatten().numpy(), values)

    def _act(self, latent: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self._policy.actor(latent)


def world_model_of(policy: Policy, path: Path, given: str | None) -> WorldModel:
    """The world model that a policy was extracted from.

    Without ``given`` it is looked for where the policy's record says that it was, from the current
    directory on, and as ``world_model`` beside the directory of policies.

    Args:
        policy: whose latents it must have.
        path: the policy's directory.
        given: the path of a world model.

    Raises:
        PwmError: if it is not found, is damaged, or the policy does not read its latents.
    """
    if given is not None:
        model = load_world_model(given, tasks=[policy.task.name])
        require_same_encoder(model, policy)
        return model
    named = extracted_from(path)
    places = [Path(named)] if named else []
    places += [parent / "world_model" for parent in path.absolute().parents[:2]]
    fault: PwmError | None = None
    for place in places:
        if not (is_checkpoint(place) or is_grouped(place) or (place / "checkpoints").is_dir()):
            continue
        try:
            model = load_world_model(place, tasks=[policy.task.name])
            require_same_encoder(model, policy)
            return model
        except PwmError as error:
            fault = fault or error
    if fault is not None:
        raise fault
    origin = f"{named}, which is not here" if named else "none that its record names"
    raise PwmError(
        f"{path} holds a policy but not the world model that it was extracted from ({origin}); "
        "give the world model as checkpoint=."
    )
