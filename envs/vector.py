"""Many environments of one or several tasks, each in a process of its own, stepped together."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState

from pwm.core.errors import PwmError
from pwm.core.processes import fresh_interpreters
from pwm.core.suites import Task, get_task

from .core import TaskEnv, check_seed


class TaskVectorEnv(AsyncVectorEnv):
    """Gymnasium's AsyncVectorEnv for tasks of several sizes; :func:`make_vector_env` makes it.

    Observations and actions are zero-padded to the largest of the tasks. There is no autoreset: a
    slot whose episode is over stays as it is (reward 0, the same observation and success,
    terminated or truncated as it was) until all slots, or those of ``options={"reset_mask": mask}``
    are reset. Workers start from a fresh interpreter that imports the simulators only, neither the
    caller's script nor torch. A fault in a worker closes the environment; the PwmError names the
    task, the slot and the seed.

    Attributes:
        slot_tasks: the task of every slot.
    """

    def __init__(self, slot_tasks: Sequence[Task], seed: int | None) -> None:
        """Starts the workers."""
        self.closed = True
        self.slot_tasks, self.num_envs = tuple(slot_tasks), len(slot_tasks)
        obs_dim = max(task.obs_dim for task in slot_tasks)
        action_dim = max(task.action_dim for task in slot_tasks)
        slots = enumerate(zip(slot_tasks, self._slot_seeds(seed), strict=True))
        makers = [partial(_Slot, number, *slot, obs_dim, action_dim) for number, slot in slots]
        self.closed = False
        with fresh_interpreters():
            super().__init__(makers, context="spawn", autoreset_mode=AutoresetMode.DISABLED)

    def _slot_seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [check_seed(seed + slot) for slot in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise PwmError(f"got {len(seed)} seeds for {self.num_envs} slots; give one per slot.")
        return [None if one is None else check_seed(one) for one in seed]

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """See ``gymnasium.vector.VectorEnv.reset``; without a seed a slot's stream goes on."""
        seeds = list(self._slot_seeds(seed))
        try:
            with self._closing_on_fault():
                return super().reset(seed=seeds, options=options)
        except (TypeError, ValueError) as error:  # of a mask that does not fit
            raise PwmError(f"cannot reset: {error}.") from error

    def step(self, actions: np.ndarray) -> Any:
        """See ``gymnasium.vector.VectorEnv.step``; a slot ignores entries past its task's size."""
        if np.shape(actions) != self.action_space.shape:
            got = np.shape(actions)
            raise PwmError(f"actions must have shape {self.action_space.shape}, got {got}.")
        with self._closing_on_fault():
            return super().step(actions)

    @contextmanager
    def _closing_on_fault(self) -> Iterator[None]:
        if self.closed:
            raise PwmError("this vector environment is closed; make a new one.")
        try:
            with warnings.catch_warnings(action="ignore"):  # which show a worker's traceback
                yield
        except (PwmError, EOFError, OSError) as fault:
            is_told = isinstance(fault, PwmError)
            ended = wait([p.sentinel for p in self.processes], timeout=0 if is_told else 10)
            died = [slot for slot, p in enumerate(self.processes) if p.sentinel in ended]
            self._state = AsyncState.DEFAULT
            self.close(terminate=True)
            if is_told:
                raise
            names = ", ".join(f"'{self.slot_tasks[slot].name}' (slot {slot})" for slot in died)
            raise PwmError(f"the worker process of {names} ended; make a new one.") from fault


class _Slot(gymnasium.Env[np.ndarray, np.ndarray]):
    """A task's environment in a worker, made at its first reset, padded, frozen when it is over."""

    def __init__(
        self, number: int, task: Task, seed: int | None, obs_dim: int, action_dim: int
    ) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # by which workers are ended
        self._number, self._task, self._seed, self._obs_dim = number, task, seed, obs_dim
        self.observation_space = Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self.action_space = Box(-1.0, 1.0, (action_dim,), np.float32)
        self._env: TaskEnv | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._seed = self._seed if seed is None else seed
        obs, info = self._named(self._begin, seed)
        self._last = self._padded(obs), 0.0, False, False, info
        return self._last[0], info

    def _begin(self, seed: int | None) -> tuple[np.ndarray, dict[str, Any]]:
        from .make import make_env

        self._env = self._env or make_env(self._task, self._seed)
        return self._env.reset(seed=seed)

    def step(self, action: np.ndarray) -> Any:
        if self._env is None:
            raise PwmError("some slots have no episode yet; call reset() before step().")
        obs, _, terminated, truncated, info = self._last
        if terminated or truncated:
            return obs, 0.0, terminated, truncated, info
        obs, *rest = self._named(self._env.step, action[: self._task.action_dim])
        self._last = self._padded(obs), *rest
        return self._last

    def _padded(self, obs: np.ndarray) -> np.ndarray:
        return np.pad(obs, (0, self._obs_dim - len(obs)))

    def _named(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as fault:
            kind = "" if isinstance(fault, PwmError) else f"{type(fault).__name__}: "
            where = f"task '{self._task.name}' (slot {self._number}, seed {self._seed})"
            raise PwmError(f"{where} failed in its worker process: {kind}{fault}") from fault

    def close(self) -> None:
        if self._env is not None:
            self._env.close()


def make_vector_env(
    tasks: Sequence[str | Task],
    n: int = 1,
    workers: int | None = None,
    seed: int | None = None,
) -> TaskVectorEnv:
    """Makes ``n`` environments of each task, stepped together, each in a process of its own.

    Args:
        tasks: as for ``make_env``; slots ``i * n`` to ``i * n + n - 1`` run the i-th.
        n: environments per task.
        workers: has no effect any more, and goes with version 0.3.
        seed: slot ``i`` starts its random stream at ``seed + i``; None takes entropy.

    Raises:
        PwmError: for an unknown task, no task, a count below 1 or a seed out of range.
    """
    if isinstance(tasks, str) or not tasks:
        raise PwmError(f"a vector environment needs a list of task names, got {tasks!r}.")
    if n < 1:
        raise PwmError(f"a vector environment needs at least one environment per task, got n={n}.")
    if workers is not None:
        warnings.warn(
            "workers= of make_vector_env has no effect: each environment has a process of its own.",
            DeprecationWarning,
            stacklevel=2,
        )
    named = [task if isinstance(task, Task) else get_task(task) for task in tasks]
    return TaskVectorEnv([task for task in named for _ in range(n)], seed)
