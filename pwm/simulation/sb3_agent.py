"""Stable-Baselines3's SAC, or TQC, as an agent that acts and learns in episodes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed

from pwm.core.suites import Task
from pwm.data.episode import Episode
from pwm.runtime.training_checkpoints import load_optimizer_tensors, optimizer_tensors
from pwm.simulation.sac_config import SacConfig


class Sb3Agent:
    """An agent of Stable-Baselines3, ``"sac"`` or ``"tqc"``, its replay included.

    It learns from single transitions as they come, instead of in the library's own loop, which
    cannot stop between two episodes. A time limit is no termination: beyond it the critics
    bootstrap. ``env`` gives the spaces, ``seed`` the first weights.
    """

    def __init__(
        self, behaviour: str, task: Task, env: gymnasium.Env[Any, Any], config: SacConfig, seed: int
    ) -> None:
        self.model: Any = self.algorithm(behaviour)(
            "MlpPolicy",
            env,
            learning_rate=config.learning_rate,
            buffer_size=config.buffer_size,
            batch_size=config.batch_size,
            tau=config.tau,
            gamma=task.discount if config.gamma is None else config.gamma,
            ent_coef=config.ent_coef,
            policy_kwargs={"net_arch": list(config.net_arch)},
            seed=seed,
            device="cpu",
        )
        self.model.set_logger(Logger(None, []))  # as learn() would, without its output
        self._config = config
        self._steps = 0

    @staticmethod
    def algorithm(behaviour: str) -> type:
        """The library's class of a behaviour in `pwm.simulation.sac_config.LEARNERS`."""
        if behaviour == "sac":
            return SAC
        from sb3_contrib import TQC

        return TQC

    def seed(self, seed: int) -> None:
        """Seeds all that the agent draws from, when it acts and when it learns."""
        set_random_seed(seed)  # torch's and NumPy's own generators

    def reset(self, rng: np.random.Generator) -> None:
        """See `Behaviour`; it draws from the library's generators instead."""

    def act(self, obs: np.ndarray) -> np.ndarray:
        """An action drawn from the policy; shapes as in `pwm.simulation.behaviors.Behaviour`."""
        action, _ = self.model.predict(obs, deterministic=False)
        return np.asarray(action, np.float32)

    def learn(
        self, obs: np.ndarray, action: np.ndarray, reward: float, after: np.ndarray, ended: bool
    ) -> None:
        """Adds a transition, from ``obs`` to ``after``, to the replay, and updates if it is due.

        ``ended`` is whether it terminated the episode, which the time limit does not.
        """
        config = self._config
        self._keep(obs[None], after[None], action[None], [reward], [ended])
        if self._steps >= config.learning_starts and self._steps % config.train_freq == 0:
            self.model.train(config.gradient_steps, config.batch_size)

    def remember(self, episode: Episode) -> None:
        """Adds an episode to the replay that it has learned from already."""
        obs, after = episode.obs[:-1], episode.obs[1:]
        self._keep(obs, after, episode.action, episode.reward, episode.terminated)

    def _keep(self, *columns: Any) -> None:
        """Transitions: observations before and after, actions, rewards, whether they terminated."""
        replay, count = self.model.replay_buffer, len(columns[0])
        at = (self._steps + np.arange(count)) % replay.buffer_size
        names = "observations", "next_observations", "actions", "rewards", "dones"
        for name, values in zip(names, columns, strict=True):
            getattr(replay, name)[at, 0] = values
        self._steps += count
        replay.pos = self._steps % replay.buffer_size
        replay.full = self._steps >= replay.buffer_size

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """All that learning changes, but for the replay."""
        model = self.model
        groups = {"policy": model.policy.state_dict()}
        if model.ent_coef_optimizer is not None:
            groups["entropy"] = {"log_ent_coef": model.log_ent_coef}
        optimizers = self._optimizers().items()
        return groups | {name: optimizer_tensors(optimizer) for name, optimizer in optimizers}

    def load(self, tensors: dict[str, dict[str, torch.Tensor]]) -> None:
        """Restores what `tensors` gave."""
        self.model.policy.load_state_dict(tensors["policy"])
        if self.model.ent_coef_optimizer is not None:
            with torch.no_grad():
                self.model.log_ent_coef.copy_(tensors["entropy"]["log_ent_coef"])
        for name, optimizer in self._optimizers().items():
            load_optimizer_tensors(optimizer, tensors[name])

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        model = self.model
        found = {
            "actor_optimizer": model.actor.optimizer,
            "critic_optimizer": model.critic.optimizer,
        }
        if model.ent_coef_optimizer is not None:
            found["entropy_optimizer"] = model.ent_coef_optimizer
        return found
