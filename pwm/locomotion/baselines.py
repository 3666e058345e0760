"""PPO and SAC of Stable-Baselines3 on batched simulations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from pwm.locomotion.baseline_config import PpoConfig, SacConfig
from pwm.locomotion.batched_simulation import BatchedSimulation
from pwm.locomotion.vec_env import SimulationVecEnv
from pwm.runtime.checkpoint import Checkpoint, Groups
from pwm.runtime.seeding import stream_seed

_SAC_STEPS = 16  # of each environment in an iteration


class Baseline:
    """An algorithm of Stable-Baselines3 that learns in chunks of its own loop.

    A run of it that was stopped begins anew: its state is pickled code, which is not kept.

    Args:
        model: the algorithm.
        chunk: steps of all environments together in an iteration.
        normalize: normalizes observations as the policy sees them; None for none.
    """

    resumes = False

    def __init__(self, model: Any, chunk: int, normalize: VecNormalize | None = None) -> None:
        model.set_logger(Logger(None, []))
        self.model, self._chunk, self._normalize = model, chunk, normalize

    @property
    def steps(self) -> int:
        """Control steps of all environments together so far."""
        return int(self.model.num_timesteps)

    def iteration(self) -> dict[str, float]:
        """As many steps as a chunk has, and the updates that belong to them."""
        self.model.learn(self._chunk, reset_num_timesteps=False, log_interval=None)
        values = self.model.logger.name_to_value.items()
        return {name: float(value) for name, value in values if name.startswith("train/")}

    def act(self, observation: Tensor) -> Tensor:
        """See :class:`pwm.locomotion.learner.Learner`."""
        seen: Any = observation.cpu().numpy()
        if self._normalize is not None:
            seen = self._normalize.normalize_obs(seen)
        action, _ = self.model.predict(seen, deterministic=True)
        return torch.as_tensor(action, dtype=observation.dtype, device=observation.device)

    def tensors(self) -> Groups:
        """None: see the class."""
        return {}

    def load(self, checkpoint: Checkpoint) -> None:
        """Not used: see the class."""

    def save(self, directory: Path) -> None:
        """The algorithm's own archive, which Stable-Baselines3 opens."""
        self.model.save(directory / "model.zip")
        if self._normalize is not None:
            self._normalize.save(str(directory / "normalization.pkl"))


def make_ppo(
    simulation: BatchedSimulation, config: PpoConfig, total_steps: int, seed: int
) -> Baseline:
    """PPO with normalized observations and rewards."""
    env = SimulationVecEnv(simulation, stream_seed(seed, "episodes"))
    normalized = VecNormalize(env, gamma=config.discount)
    model = PPO(
        "MlpPolicy",
        normalized,
        learning_rate=config.lr,
        n_steps=config.horizon,
        batch_size=config.batch_size,
        n_epochs=config.epochs,
        gamma=config.discount,
        gae_lambda=config.lam,
        policy_kwargs={
            "net_arch": list(config.net_arch),
            "log_std_init": math.log(config.initial_std),
        },
        seed=stream_seed(seed, "ppo"),
        device="cpu",
    )
    return Baseline(model, config.horizon * simulation.num_envs, normalized)


def make_sac(
    simulation: BatchedSimulation, config: SacConfig, total_steps: int, seed: int
) -> Baseline:
    """SAC; an iteration is a few steps of each environment."""
    chunk = _SAC_STEPS * simulation.num_envs
    env = SimulationVecEnv(simulation, stream_seed(seed, "episodes"))
    model = SAC(
        "MlpPolicy",
        env,
        learning_rate=config.lr,
        buffer_size=min(config.replay, total_steps + chunk),
        learning_starts=config.first_steps,
        batch_size=config.batch_size,
        tau=config.tau,
        gamma=config.discount,
        train_freq=1,
        gradient_steps=config.updates,
        policy_kwargs={"net_arch": list(config.net_arch)},
        seed=stream_seed(seed, "sac"),
        device="cpu",
    )
    return Baseline(model, chunk)
