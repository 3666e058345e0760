"""Stable-Baselines3's SAC, or TQC, in a worker process: acts, learns, and can be put down again."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed

from pwm.behaviours import Behaviour, RandomBehaviour
from pwm.checkpoint import (
    is_checkpoint,
    load_checkpoint,
    load_optimizer_tensors,
    optimizer_tensors,
    save_step,
    step_name,
)
from pwm.dataset import Episode, EpisodeStore
from pwm.episodes import episode_seed, run_episode
from pwm.errors import PwmError
from pwm.sac import SacConfig, Training
from pwm.streams import stream_seed
from pwm.suites import Task
from pwm.watched_env import WatchedEnv
from pwm.worker_pool import Caller

_KIND = "agent"


class Agent:
    """An agent of Stable-Baselines3, its replay included.

    It learns from single transitions as they come, instead of in the library's own loop, which
    cannot stop between two episodes. A time limit is no termination: beyond it the critics
    bootstrap.

    Args:
        behaviour: ``"sac"`` or ``"tqc"``.
        task: what it learns.
        env: of the task, for its spaces.
        config: settings.
        seed: of its first weights.
    """

    def __init__(
        self, behaviour: str, task: Task, env: gymnasium.Env[Any, Any], config: SacConfig, seed: int
    ) -> None:
        self.model: Any = _algorithm(behaviour)(
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
        self.model.set_logger(Logger(None, []))
        self._config = config
        self._steps = 0

    def reset(self, rng: np.random.Generator) -> None:
        """See `pwm.behaviours.Behaviour`; it draws from the library's generators instead."""

    def act(self, obs: np.ndarray) -> np.ndarray:
        """An action drawn from the policy; shapes as in `pwm.behaviours.Behaviour`."""
        action, _ = self.model.predict(obs, deterministic=False)
        return np.asarray(action, np.float32)

    def learn(
        self, obs: np.ndarray, action: np.ndarray, reward: float, after: np.ndarray, ended: bool
    ) -> None:
        """Takes a transition into the replay, and updates if it is time to.

        Args:
            obs: (obs_dim,) before the step.
            action: (action_dim,).
            reward: of the step.
            after: (obs_dim,) after it.
            ended: whether it terminated the episode; the time limit does not.
        """
        config = self._config
        self._keep(obs[None], action[None], np.array([reward]), after[None], np.array([ended]))
        if self._steps >= config.learning_starts and self._steps % config.train_freq == 0:
            self.model.train(config.gradient_steps, config.batch_size)

    def remember(self, episode: Episode) -> None:
        """Takes an episode into the replay that it has learned from already."""
        obs, after = episode.obs[:-1], episode.obs[1:]
        self._keep(obs, episode.action, episode.reward, after, episode.terminated)

    def _keep(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        after: np.ndarray,
        ended: np.ndarray,
    ) -> None:
        replay = self.model.replay_buffer
        at = (self._steps + np.arange(len(action))) % replay.buffer_size
        replay.observations[at, 0], replay.next_observations[at, 0] = obs, after
        replay.actions[at, 0], replay.rewards[at, 0], replay.dones[at, 0] = action, reward, ended
        self._steps += len(action)
        replay.pos = self._steps % replay.buffer_size
        replay.full = self._steps >= replay.buffer_size

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """All that learning changes, but for the replay."""
        model = self.model
        groups = {"policy": model.policy.state_dict()}
        if model.ent_coef_optimizer is not None:
            groups["entropy"] = {"log_ent_coef": model.log_ent_coef}
        return groups | {
            name: optimizer_tensors(optimizer) for name, optimizer in self._optimizers().items()
        }

    def load(self, tensors: dict[str, dict[str, torch.Tensor]]) -> None:
        """Takes what `tensors` gave."""
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


def _algorithm(behaviour: str) -> type:
    if behaviour == "sac":
        return SAC
    from sb3_contrib import TQC

    return TQC


class Lesson(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """A task's environment that shows an agent all that happens, whoever chooses the actions.

    All randomness of an episode, that of the agent's updates included, follows from its seed, so
    that between two episodes there is no generator whose state would have to be kept.
    """

    def __init__(self, env: gymnasium.Env[np.ndarray, np.ndarray], agent: Agent) -> None:
        super().__init__(env)
        self._agent = agent

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """See ``gymnasium.Env.reset``; the seed is needed."""
        assert seed is not None
        set_random_seed(stream_seed(seed, "agent"))  # torch's and NumPy's own, which it draws from
        self._obs, info = self.env.reset(seed=seed, options=options)
        return self._obs, info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """See ``gymnasium.Env.step``."""
        after, reward, terminated, truncated, info = self.env.step(action)
        self._agent.learn(self._obs, action, float(reward), after, terminated)
        self._obs = after
        return after, float(reward), terminated, truncated, info


class AtWork:
    """A task's training, as far as it has come in this process or was put down by another."""

    def __init__(self, caller: Caller, training: Training, task: Task) -> None:
        self._caller, self._training, self._task = caller, training, task
        behaviour = training.behaviour
        env = WatchedEnv(task, caller)
        seed = stream_seed(training.seed, f"{behaviour} {task.name}")
        self.agent = Agent(behaviour, task, env, training.config, seed)
        self._env = Lesson(env, self.agent)
        self._behaviours: dict[str, Behaviour] = {
            "random": RandomBehaviour(task),
            behaviour: self.agent,
        }
        self._episodes = 0

    def stretch(self, first: int, end: int) -> list[Episode]:
        """See `pwm.sac.train_stretch`; the agent that it ends with is on disk."""
        if first != self._episodes:
            self._take_up(first)
        made: list[Episode] = []
        for index in range(first, end):
            made.append(self._episode(index))
            if not self._caller.ask((len(made), float(made[-1].reward.sum()))):
                break
        self._episodes = first + len(made)
        # The one before stays until the episodes that lead to this one are in the store.
        agents = self._training.agents(self._task)
        save_step(agents, _KIND, self._episodes, self.agent.tensors(), {}, keep_last=2)
        return made

    def _episode(self, index: int) -> Episode:
        training, task = self._training, self._task
        at_random = index < training.config.random_episodes
        name = "random" if at_random else training.behaviour
        seed = episode_seed(training.seed, task.name, index)
        return run_episode(self._env, task, seed, {name: 1.0}, self._behaviours.__getitem__)

    def _take_up(self, episodes: int) -> None:
        """Has the agent be what it was after so many episodes, which are in the store."""
        training, task = self._training, self._task
        path = training.agents(task) / step_name(episodes)
        if not is_checkpoint(path):
            raise PwmError(
                f"the agent after {episodes} episodes is not in {path}, and without it the "
                "next cannot be made; put it back, or give another seed= to begin anew."
            )
        self.agent.load(load_checkpoint(path, _KIND).tensors)
        store = EpisodeStore.open(training.store)
        source = list(store.sources).index(training.source)
        for index in np.flatnonzero(store.episodes(task.name)["source"] == source):
            self.agent.remember(store.episode(task.name, int(index)))
        self._episodes = episodes


@lru_cache(maxsize=1)  # a worker stays with a task
def agent_at_work(caller: Caller, training: Training, task: Task) -> AtWork:
    """A task's agent in this process, new or as its last stretch left it."""
    return AtWork(caller, training, task)
