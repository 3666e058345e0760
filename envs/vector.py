"""Many environments over worker processes that share memory with the caller."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.core import TaskEnv, check_seed
from pwm.core.errors import PwmError
from pwm.core.processes import available_cores, fresh_interpreters
from pwm.core.suites import Task, get_task

_RESET, _STEP, _CLOSE, _DONE = b"reset", b"step", b"close", b""
_NO_SEED = -1
_SECONDS_TO_CLOSE = 10.0


@dataclass(frozen=True)
class _Shared:
    """Raw shared memory, a row a slot; pickled only while a worker is started."""

    slots: int
    obs_dim: int
    action_dim: int
    observations: Any
    actions: Any
    rewards: Any
    terminated: Any
    truncated: Any
    success: Any
    reset_mask: Any
    seeds: Any

    @classmethod
    def allocate(cls, context: SpawnContext, slots: int, obs_dim: int, action_dim: int) -> _Shared:
        array = context.RawArray
        return cls(
            slots,
            obs_dim,
            action_dim,
            observations=array(ctypes.c_float, slots * obs_dim),
            actions=array(ctypes.c_float, slots * action_dim),
            rewards=array(ctypes.c_double, slots),
            terminated=array(ctypes.c_bool, slots),
            truncated=array(ctypes.c_bool, slots),
            success=array(ctypes.c_float, slots),
            reset_mask=array(ctypes.c_bool, slots),
            seeds=array(ctypes.c_int64, slots),
        )


class _Arrays:
    """NumPy views of the shared memory."""

    def __init__(self, shared: _Shared) -> None:
        def view(buffer: Any) -> np.ndarray:
            return np.ctypeslib.as_array(buffer)

        self.observations = view(shared.observations).reshape(shared.slots, shared.obs_dim)
        self.actions = view(shared.actions).reshape(shared.slots, shared.action_dim)
        self.rewards = view(shared.rewards)
        self.terminated = view(shared.terminated)
        self.truncated = view(shared.truncated)
        self.success = view(shared.success)
        self.reset_mask = view(shared.reset_mask)
        self.seeds = view(shared.seeds)


def make_vector_env(
    tasks: Sequence[str | Task],
    n: int = 1,
    workers: int | None = None,
    seed: int | None = None,
) -> ProcessVectorEnv:
    """Makes ``n`` environments of each task, stepped together by worker processes.

    Args:
        tasks: as for ``make_env``; slots ``i * n`` to ``i * n + n - 1`` run the i-th.
        n: environments a task.
        workers: processes; by default one a CPU core, and never more than there are slots.
        seed: slot ``i`` starts its random stream at ``seed + i``; None takes entropy.

    Raises:
        PwmError: for an unknown task, no task, a count below 1 or a seed out of range.
    """
    return ProcessVectorEnv(tasks, n, workers, seed)


class ProcessVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """A Gymnasium vector environment of one or several tasks over worker processes.

    Observations and actions are zero-padded to the largest of the given tasks. There is no
    autoreset: a slot whose episode is over stays as it is (reward 0, the same observation and
    success, terminated or truncated as it was) until it is reset. Workers start from a fresh
    interpreter that imports the simulators only, neither the caller's script nor torch.

    Attributes:
        num_envs: slots, ``len(tasks) * n``.
        slot_tasks: the task of every slot.
        workers: number of worker processes.
        single_observation_space: float32 box ``(obs_dim,)`` of the largest task.
        single_action_space: float32 box ``(action_dim,)`` in [-1, 1] of the largest task.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012
    single_observation_space: Box
    single_action_space: Box

    def __init__(
        self,
        tasks: Sequence[str | Task],
        n: int = 1,
        workers: int | None = None,
        seed: int | None = None,
    ) -> None:
        """Starts the workers; arguments and errors are those of ``make_vector_env``."""
        self.closed = True
        if isinstance(tasks, str) or not tasks:
            raise PwmError(f"a vector environment needs a list of task names, got {tasks!r}.")
        if n < 1 or (workers is not None and workers < 1):
            raise PwmError(
                f"a vector environment needs at least one environment a task and one worker, "
                f"got n={n}, workers={workers}."
            )
        self.slot_tasks: tuple[Task, ...] = tuple(
            task if isinstance(task, Task) else get_task(task) for task in tasks for _ in range(n)
        )
        self.num_envs = len(self.slot_tasks)
        self.workers = min(workers or available_cores(), self.num_envs)
        self._seeds = self._slot_seeds(seed)
        self._first_seeds = list(self._seeds)
        self._begun = np.zeros(self.num_envs, np.bool_)

        obs_dim = max(task.obs_dim for task in self.slot_tasks)
        action_dim = max(task.action_dim for task in self.slot_tasks)
        self.single_observation_space = Box(-np.inf, np.inf, (obs_dim,), np.float32)
        self.single_action_space = Box(-1.0, 1.0, (action_dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

        context = multiprocessing.get_context("spawn")
        shared = _Shared.allocate(context, self.num_envs, obs_dim, action_dim)
        self._arrays = _Arrays(shared)
        self._shares = [
            (int(share[0]), int(share[-1]) + 1)
            for share in np.array_split(np.arange(self.num_envs), self.workers)
        ]
        self._processes: list[SpawnProcess] = []
        self._connections: list[Connection] = []
        # Also when the environment is dropped unclosed, or the interpreter ends.
        self._end_workers = weakref.finalize(self, _end, self._connections, self._processes)
        self.closed = False
        try:
            with fresh_interpreters():
                for first, last in self._shares:
                    self._start(context, shared, first, last)
        except BaseException:
            self.close()
            raise
        self._collect()

    def _start(self, context: SpawnContext, shared: _Shared, first: int, last: int) -> None:
        ours, theirs = context.Pipe()
        tasks = self.slot_tasks[first:last]
        process = context.Process(
            target=_work, args=(theirs, shared, first, tasks), name=f"envs-{first}", daemon=True
        )
        self._connections.append(ours)
        self._processes.append(process)
        process.start()
        theirs.close()

    def _slot_seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [check_seed(seed + slot) for slot in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise PwmError(
                f"got {len(seed)} seeds for {self.num_envs} slots; give one seed or None a slot, "
                "or a single integer."
            )
        return [None if one is None else check_seed(one) for one in seed]

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins an episode in every slot, or in those of a mask.

        Args:
            seed: one seed or None a slot, or an integer s for seeds s, s + 1, ...; None continues
                a slot's random stream.
            options: ``{"reset_mask": mask}`` with a bool array ``(num_envs,)`` resets only the
                slots where it is true.

        Returns:
            Observations ``(num_envs, obs_dim)`` float32 and ``{"success": (num_envs,) float32}``.

        Raises:
            PwmError: for seeds or a mask that do not fit, or when a worker fails.
        """
        seeds = self._slot_seeds(seed)
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise PwmError(
                f"reset_mask must be a bool array of shape ({self.num_envs},), "
                f"got {mask.dtype} of shape {mask.shape}."
            )
        arrays = self._arrays
        for slot in np.flatnonzero(mask):
            start = self._first_seeds[slot] if seeds[slot] is None else seeds[slot]
            self._first_seeds[slot] = None
            arrays.seeds[slot] = _NO_SEED if start is None else start
            if start is not None:
                self._seeds[slot] = start
        arrays.reset_mask[:] = mask
        self._exchange(_RESET)
        self._begun |= mask
        return arrays.observations.copy(), {"success": arrays.success.copy()}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Takes one decision step in every slot whose episode is under way.

        Args:
            actions: ``(num_envs, action_dim)``; entries past a task's own size are ignored.

        Returns:
            Observations ``(num_envs, obs_dim)`` float32, rewards ``(num_envs,)`` float64,
            terminated and truncated ``(num_envs,)`` bool, ``{"success": (num_envs,) float32}``.

        Raises:
            PwmError: for actions of another shape, before the first reset, or when a worker
                fails: the message names the task and its seed, and the environment is closed.
        """
        arrays = self._arrays
        if np.shape(actions) != arrays.actions.shape:
            raise PwmError(
                f"actions must have shape {arrays.actions.shape}, got {np.shape(actions)}."
            )
        if not self._begun.all():
            raise PwmError("some slots have no episode yet; call reset() before step().")
        arrays.actions[:] = actions
        self._exchange(_STEP)
        return (
            arrays.observations.copy(),
            arrays.rewards.copy(),
            arrays.terminated.copy(),
            arrays.truncated.copy(),
            {"success": arrays.success.copy()},
        )

    def _exchange(self, command: bytes) -> None:
        if self.closed:
            raise PwmError("this vector environment is closed; make a new one.")
        for connection in self._connections:
            # A worker that has ended is reported when its answer is due.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.send_bytes(command)
        self._collect()

    def _collect(self) -> None:
        """Waits for every worker's answer; any fault or interruption closes the environment."""
        try:
            faults = [
                fault
                for worker in range(self.workers)
                if (fault := self._answer(worker)) is not None
            ]
            if faults:
                raise PwmError(" ".join(faults))
        except BaseException:
            self.close()
            raise

    def _answer(self, worker: int) -> str | None:
        try:
            answer = self._connections[worker].recv_bytes()
        except (EOFError, ConnectionResetError):
            process = self._processes[worker]
            process.join(_SECONDS_TO_CLOSE)
            first, last = self._shares[worker]
            slots = ", ".join(self._describe(slot) for slot in range(first, last))
            return f"a worker process ended with exit code {process.exitcode} running {slots}."
        if answer == _DONE:
            return None
        slot, _, fault = answer.decode().partition(" ")
        return f"{self._describe(int(slot))} failed in its worker process: {fault}"

    def _describe(self, slot: int) -> str:
        return f"task '{self.slot_tasks[slot].name}' (slot {slot}, seed {self._seeds[slot]})"

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the workers and waits for them."""
        self._end_workers()


def _end(connections: list[Connection], processes: list[SpawnProcess]) -> None:
    for connection in connections:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.send_bytes(_CLOSE)
    for process in processes:
        if process.pid is not None:
            process.join(_SECONDS_TO_CLOSE)
            if process.is_alive():
                process.kill()
                process.join()
        process.close()
    for connection in connections:
        connection.close()


def _work(connection: Connection, shared: _Shared, first: int, tasks: Sequence[Task]) -> None:
    """A worker: owns the slots from ``first`` on and answers one command at a time.

    Answers are empty, or ``"<slot> <fault>"`` after which the worker ends.
    """
    from envs import make_env

    arrays = _Arrays(shared)
    envs: list[TaskEnv] = []
    slot = first
    try:
        for task in tasks:
            slot = first + len(envs)
            envs.append(make_env(task))
        connection.send_bytes(_DONE)
        while (command := connection.recv_bytes()) != _CLOSE:
            for slot, env in enumerate(envs, first):
                if command == _RESET:
                    _reset_slot(env, arrays, slot)
                else:
                    _step_slot(env, arrays, slot)
            connection.send_bytes(_DONE)
    except EOFError:
        pass  # The parent is gone.
    except Exception as fault:
        name = "" if isinstance(fault, PwmError) else f"{type(fault).__name__}: "
        with contextlib.suppress(BrokenPipeError):
            connection.send_bytes(f"{slot} {name}{fault}".encode())
    finally:
        for env in envs:
            env.close()


def _reset_slot(env: TaskEnv, arrays: _Arrays, slot: int) -> None:
    if not arrays.reset_mask[slot]:
        return
    seed = int(arrays.seeds[slot])
    observation, _ = env.reset(seed=None if seed == _NO_SEED else seed)
    arrays.observations[slot, : observation.size] = observation
    arrays.rewards[slot] = 0.0
    arrays.terminated[slot] = False
    arrays.truncated[slot] = False
    arrays.success[slot] = 0.0


def _step_slot(env: TaskEnv, arrays: _Arrays, slot: int) -> None:
    if arrays.terminated[slot] or arrays.truncated[slot]:
        arrays.rewards[slot] = 0.0
        return
    action = arrays.actions[slot, : env.task.action_dim]
    observation, reward, terminated, truncated, info = env.step(action)
    arrays.observations[slot, : observation.size] = observation
    arrays.rewards[slot] = reward
    arrays.terminated[slot] = terminated
    arrays.truncated[slot] = truncated
    arrays.success[slot] = info["success"]
