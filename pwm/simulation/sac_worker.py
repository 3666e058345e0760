"""A task's agent in a worker process, which acts, learns, and goes on from its checkpoints."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np

from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.core.worker_pool import Caller
from pwm.data.episode import Episode
from pwm.data.store import EpisodeStore
from pwm.runtime.checkpoint import is_checkpoint, load_checkpoint
from pwm.runtime.seeding import stream_seed
from pwm.runtime.training_checkpoints import save_step, step_name
from pwm.simulation.behaviors import Behaviour, RandomBehaviour
from pwm.simulation.rollout import episode_seed, run_episode
from pwm.simulation.sac_config import SacConfig, Training
from pwm.simulation.sb3_agent import Sb3Agent
from pwm.simulation.watched_env import WatchedEnv

_KIND = "agent"


class RecordingEnv(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """A task's environment whose transitions an agent learns from, whoever chooses the actions.

    All randomness of an episode, that of the agent's updates included, follows from its seed, so
    that between two episodes there is no generator whose state would have to be kept.

    Attributes:
        learns: whether the agent does; otherwise the transitions are only played.
    """

    def __init__(self, env: gymnasium.Env[np.ndarray, np.ndarray], agent: Sb3Agent) -> None:
        super().__init__(env)
        self._agent = agent
        self.learns = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """See ``gymnasium.Env.reset``; the seed is needed."""
        assert seed is not None
        self._agent.seed(stream_seed(seed, "agent"))
        self._obs, info = self.env.reset(seed=seed, options=options)
        return self._obs, info

    def step(self, action: np.ndarray) -> Any:
        """See ``gymnasium.Env.step``."""
        after, reward, terminated, truncated, info = self.env.step(action)
        if self.learns:
            self._agent.learn(self._obs, action, float(reward), after, terminated)
        self._obs = after
        return after, reward, terminated, truncated, info


class AgentTrainer:
    """A task's training, as far as it has come in this process or in the checkpoints of another."""

    def __init__(self, caller: Caller, training: Training, task: Task) -> None:
        self._caller, self._training, self._task = caller, training, task
        behaviour = training.behaviour
        env = WatchedEnv(task, caller)
        seed = stream_seed(training.seed, f"{behaviour} {task.name}")
        self.agent = agent_class(training.config)(behaviour, task, env, training.config, seed)
        self._env = RecordingEnv(env, self.agent)
        self._behaviours: dict[str, Behaviour] = {"random": RandomBehaviour(task)}
        self._behaviours[behaviour] = self.agent
        self._episodes = 0
        for source in training.config.prior:
            self._remember(source)

    def train_episodes(self, first: int, end: int) -> list[Episode]:
        """See `sac_collection.train_episodes`; the agent that it ends with is on disk."""
        if first != self._episodes:
            self.restore(first)
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
        self._env.learns = training.learns_in(index)
        return run_episode(self._env, task, seed, {name: 1.0}, self._behaviours.__getitem__)

    def restore(self, episodes: int) -> None:
        """Restores the agent as it was after so many episodes, which are in the store."""
        training, task = self._training, self._task
        path = training.agents(task) / step_name(episodes)
        if not is_checkpoint(path):
            raise PwmError(
                f"the agent after {episodes} episodes is not in {path}, and without it the "
                "next cannot be made; put it back, or give another seed= to begin anew."
            )
        self.agent.load(load_checkpoint(path, _KIND).tensors)
        self._remember(training.source)
        self._episodes = episodes

    def _remember(self, source: str) -> None:
        """Adds a source's episodes of the task to the agent's replay."""
        store, task = EpisodeStore.open(self._training.store), self._task.name
        number = list(store.sources).index(source)
        for index in np.flatnonzero(store.episodes(task)["source"] == number):
            self.agent.remember(store.episode(task, int(index)))


def agent_class(config: SacConfig) -> type[Sb3Agent]:
    """The class of the agents of a setting's backend."""
    if config.backend == "torch":
        return Sb3Agent
    from pwm.simulation.sbx_agent import SbxAgent  # here, for JAX need not be installed

    return SbxAgent


agent_trainer = lru_cache(maxsize=1)(AgentTrainer)  # a worker stays with a task
"""A task's agent in this process, new or as its last job left it."""
