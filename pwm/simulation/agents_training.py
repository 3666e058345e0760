"""Agents of K tasks that learn in one loop, while worker processes step their simulators.

All agents act, their actions go to the workers, and while these step the agents learn from what was
there before. Tasks whose clocks are behind, after a kill or where a task is new, go alone until
they have caught up, so that those that learn together have made as many steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pwm.core.counted import counted
from pwm.core.errors import PwmError
from pwm.core.progress import console
from pwm.core.suites import Task
from pwm.data.store import EpisodeStore
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.checkpoint import Groups, is_checkpoint, load_checkpoint
from pwm.runtime.device import free_memory, use_device
from pwm.runtime.processor import say_if_busy
from pwm.runtime.seeding import restore, stream
from pwm.runtime.training_checkpoints import save_step, step_name
from pwm.simulation.agents_config import AGENTS, AgentsConfig, row_width
from pwm.simulation.agents_replay import Replay
from pwm.simulation.sac_config import AGENTS_DIRECTORY
from pwm.simulation.simulator_slots import Stepped
from pwm.simulation.slot_episodes import SlotEpisode, TaskEpisodes
from pwm.simulation.stacked_agents import Agents, Draws, first_state

Came = Mapping[tuple[int, int], Stepped]
"""What steps led to, by member's number and slot."""

SECONDS_BETWEEN_COMMITS = 60.0
_KIND = "stacked_agent"


@dataclass(eq=False)
class Member:
    """A task in the loop.

    Attributes:
        task: the task.
        number: its row in the replay.
        wanted: episodes to be stored.
        episodes: those so far.
        generator: of all that its agent draws.
        state: the agent, while it is in no stack.
        directory: of its checkpoints.
    """

    task: Task
    number: int
    wanted: int
    episodes: TaskEpisodes
    generator: torch.Generator
    state: Groups
    directory: Path

    @property
    def finished(self) -> bool:
        """Whether all wanted episodes are stored."""
        return len(self.episodes.places) >= self.wanted


class _Rate:
    """Steps a second, of the last seconds."""

    _SECONDS = 5.0

    def __init__(self) -> None:
        self._since, self._steps, self._last = time.monotonic(), 0, 0.0

    def add(self, steps: int) -> None:
        self._steps += steps

    @property
    def now(self) -> float:
        seconds = time.monotonic() - self._since
        if not self._last or seconds > self._SECONDS:
            self._last = self._steps / max(seconds, 1e-6)
            self._since, self._steps = time.monotonic(), 0
        return self._last


@dataclass(eq=False)
class _Stack:
    """Members whose agents act together, and learn together or not at all."""

    members: Sequence[Member]
    learns: bool
    agents: Agents
    draws: Draws
    rows: Tensor  # of the replay

    def put_down(self) -> None:
        if self.learns:
            for k, member in enumerate(self.members):
                member.state = self.agents.state(k)


class AgentsTraining:
    """The training of agents of all tasks that want further episodes.

    Args:
        store: where episodes are, and go; its ``.agents`` has the agents.
        source: the key of the episodes.
        seed: the collection's.
        config: how the agents learn.
        wanted: episodes by task.
        made: how many of these are stored.
        show: called with the ``completed`` episodes and a ``note``.
    """

    def __init__(
        self,
        store: EpisodeStore,
        source: str,
        seed: int,
        config: AgentsConfig,
        wanted: Mapping[str, int],
        made: Mapping[str, int],
        show: Callable[..., None],
    ) -> None:
        self._store, self._source, self._seed, self._config = store, source, seed, config
        self._show, self._rate = show, _Rate()
        names = [task for task in wanted if made[task] < wanted[task]]
        self._began = sum(made[task] for task in names)
        suite = store.suite
        self._sizes = (
            max(suite[name].obs_dim for name in wanted),
            max(suite[name].action_dim for name in wanted),
        )
        device = use_device(config.device)
        say_if_busy(device)
        capacity = config.capacity(suite, {name: wanted[name] for name in names})
        _require_room(len(names), capacity, self._sizes, device)
        self._accelerator = Acceleration(config.compile, config.precision).prepare(device)
        self._replay = Replay(len(names), capacity, *self._sizes, device)
        self.members = [self._member(i, suite[name], wanted[name]) for i, name in enumerate(names)]
        for member in self.members:
            self._take_up(member, made[member.task.name])
        self._stacks: list[_Stack] = []
        self._stacked: object = None
        self._committed = time.monotonic()

    def _member(self, number: int, task: Task, wanted: int) -> Member:
        config, device = self._config, self._accelerator.device
        slots, name = config.envs_per_task, f"agents {task.name} draws"
        return Member(
            task,
            number,
            wanted,
            TaskEpisodes(task, self._seed, slots, config.random_episodes, AGENTS),
            stream(self._seed, name, device),
            first_state(task, config, self._seed),
            self._store.path / AGENTS_DIRECTORY / self._source / task.name,
        )

    def _take_up(self, member: Member, made: int) -> None:
        """Restores a task as it was after so many stored episodes, its replay included."""
        path = member.directory / step_name(made)
        if not is_checkpoint(path):
            if made:
                raise PwmError(
                    f"the agent after {made} episodes is not in {path}, and without it the next "
                    "cannot be made; put it back, or give another seed= to begin anew."
                )
            return
        saved = load_checkpoint(path, _KIND)
        groups = dict(saved.tensors)
        arrays = {name: tensor.numpy() for name, tensor in groups.pop("episodes").items()}
        state = groups.pop("draws")["state"]
        member.state = groups
        member.episodes.restore(arrays, saved.meta["episodes"])
        name = f"agents {member.task.name} draws after {member.episodes.clock}"
        restore(member.generator, state, self._seed, name)
        self._fill(member)

    def _fill(self, member: Member) -> None:
        store, task = self._store, member.task.name
        number = list(store.sources).index(self._source)
        indices = np.flatnonzero(store.episodes(task)["source"] == number)
        stored = [store.episode(task, int(index)) for index in indices]
        end = member.episodes.clock * self._config.envs_per_task
        for places, *columns in member.episodes.transitions(stored):
            self._replay.fill(member.number, places, self._replay.row(*columns), end)

    def act(self, active: Sequence[Member]) -> list[list[np.ndarray]]:
        """The actions of each member's slots."""
        self._stack(active)
        actions: dict[int, list[np.ndarray]] = {}
        for stack in self._stacks:
            playing = [member.episodes.playing() for member in stack.members]
            chosen = self._chosen(stack, playing)
            for member, episodes, of_member in zip(stack.members, playing, chosen, strict=True):
                task = member.task
                actions[member.number] = [
                    episode.random_action(task)
                    if episode.behaviour == "random"
                    else of_member[k, : task.action_dim].copy()
                    for k, episode in enumerate(episodes)
                ]
        return [actions[member.number] for member in active]

    def _chosen(self, stack: _Stack, playing: Sequence[Sequence[SlotEpisode]]) -> np.ndarray:
        obs_dim, _ = self._sizes
        obs = np.zeros((len(playing), self._config.envs_per_task, obs_dim), np.float32)
        for k, (member, episodes) in enumerate(zip(stack.members, playing, strict=True)):
            obs[k, :, : member.task.obs_dim] = [episode.obs[-1] for episode in episodes]
        seen = torch.from_numpy(obs).to(self._accelerator.device)
        if stack.learns:
            stack.agents.observe(seen)
        actions = stack.agents.act(seen, self._noise(stack, playing))
        if not (finite := np.isfinite(actions).all((1, 2))).all():
            broken = stack.members[int(np.argmin(finite))].task.name
            raise PwmError(
                f"the agent of {broken} has diverged: its actions are not numbers; the episodes so "
                "far are kept. Give a lower agents.learning_rate, or leave the task out."
            )
        return actions

    def _noise(self, stack: _Stack, playing: Sequence[Sequence[SlotEpisode]]) -> Tensor:
        """Standard normal, (K, E, action_dim), zero in the padding."""
        color, slots = self._config.noise_color, self._config.envs_per_task
        if not color:
            return stack.draws.noise(slots)
        noise = np.zeros((len(playing), slots, self._sizes[1]), np.float32)
        for k, (member, episodes) in enumerate(zip(stack.members, playing, strict=True)):
            own = [episode.noise(member.task, color) for episode in episodes]
            noise[k, :, : member.task.action_dim] = own
        return torch.from_numpy(noise).to(self._accelerator.device)

    def _stack(self, active: Sequence[Member]) -> None:
        """Puts those that act next into stacks, unless they are."""
        learning = {m.number: self._config.learns(m.episodes.begun) for m in active}
        if learning == self._stacked:
            return
        for stack in self._stacks:
            stack.put_down()
        self._stacks = [
            self._new_stack(of_kind, learns)
            for learns in (True, False)
            if (of_kind := [m for m in active if learning[m.number] == learns])
        ]
        self._stacked = learning

    def _new_stack(self, members: Sequence[Member], learns: bool) -> _Stack:
        tasks = [member.task for member in members]
        states = [member.state for member in members]
        agents = Agents(tasks, *self._sizes, self._config, self._accelerator, states)
        sizes = [task.action_dim for task in tasks]
        draws = Draws([m.generator for m in members], sizes, self._sizes[1])
        rows = torch.tensor([m.number for m in members], device=self._accelerator.device)
        return _Stack(members, learns, agents, draws, rows)

    def learn(self) -> None:
        """The updates that are due while the simulators step."""
        for stack in self._stacks:
            clock = stack.members[0].episodes.clock
            due = self._config.updates_due(clock) if stack.learns else 0
            if not due:
                continue
            there = min(clock * self._config.envs_per_task, self._replay.capacity)
            size = self._config.batch_size
            indices = stack.draws.indices(there, due, size)
            noise = stack.draws.noise(due, 2, size)
            for i in range(due):
                batch = self._replay.take(stack.rows, indices[:, i])
                stack.agents.update(batch, noise[:, i].transpose(0, 1).contiguous())

    def note(
        self, active: Sequence[Member], acted: Sequence[list[np.ndarray]], came: Came
    ) -> list[tuple[Member, int]]:
        """Takes what a step of every slot led to; returns the slots where an episode begins."""
        rows, begun, told = [], [], ""
        place = active[0].episodes.clock * self._config.envs_per_task
        for member, actions in zip(active, acted, strict=True):
            steps = [came[member.number, slot] for slot in range(len(actions))]
            before = [episode.obs[-1] for episode in member.episodes.playing()]
            after = [step.obs for step in steps]
            ends = [(step.reward, step.terminated) for step in steps]
            columns = (
                np.array(values) for values in (before, after, actions, *zip(*ends, strict=True))
            )
            rows.append(self._replay.row(*columns))
            ended, slots = member.episodes.add(actions, steps)
            begun += [(member, slot) for slot in slots]
            if ended:
                told = f"{member.task.name}: return {sum(ended[-1].reward):z.0f}"
            self._rate.add(len(actions))
        self._replay.add([member.number for member in active], place, np.array(rows))
        if told:  # once for all: of updates in no time a bar would make a rate without meaning
            there = sum(min(m.episodes.complete, m.wanted) for m in self.members)
            note = f"{self._rate.now:,.0f} steps/s, {told}"
            self._show(completed=there - self._began, note=note)
        due = time.monotonic() - self._committed > SECONDS_BETWEEN_COMMITS
        for member in active:
            if due or member.episodes.complete >= member.wanted:
                self.commit(member)
        if due:
            self._committed = time.monotonic()
        return begun

    def commit(self, member: Member) -> None:
        """Puts a task's agent on the disk, and its episodes into the store."""
        for stack in self._stacks:
            if stack.learns and member in stack.members:
                member.state = stack.agents.state(stack.members.index(member))
        episodes = member.episodes.pop_ready(member.wanted)
        arrays, facts = member.episodes.saved()
        groups = {
            **member.state,
            "draws": {"state": member.generator.get_state()},
            "episodes": {name: torch.from_numpy(values) for name, values in arrays.items()},
        }
        # The one before stays until the episodes that lead to this one are in the store.
        done = len(member.episodes.places)
        save_step(member.directory, _KIND, done, groups, {"episodes": facts}, keep_last=2)
        self._store.append(member.task.name, episodes, self._source)


def _require_room(tasks: int, capacity: int, sizes: tuple[int, int], device: torch.device) -> None:
    """Says what the replays take; raises PwmError where there is no room for them."""
    needed = 4 * tasks * capacity * row_width(*sizes)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    replays = (
        f"the replays of {counted(tasks, 'task')}, {capacity:,} steps each, take "
        f"{needed / 2**30:,.2f} GiB"
    )
    if needed > free:
        raise PwmError(
            f"{replays}, and {free / 2**30:,.2f} GiB are free on {device}; give a smaller "
            "agents.buffer_size, or fewer tasks at a time."
        )
    console.print(f"{replays[0].upper()}{replays[1:]} on {device}.", soft_wrap=True)
