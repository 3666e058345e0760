"""Episodes of a task that are played in several slots at once, and what is known of each.

A task's clock counts steps, of which every slot makes one at a time. Transition ``(clock, slot)``
has a place of its own in the replay, which can thus be filled again from stored episodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pwm.core.suites import Task
from pwm.data.episode import Episode
from pwm.simulation.behaviors import RandomBehaviour
from pwm.simulation.colored_noise import colored_noise
from pwm.simulation.rollout import episode_seed
from pwm.simulation.simulator_slots import Begin, Stepped

_OF_NOISE = 1  # apart from the draws of uniform actions


@dataclass
class SlotEpisode:
    """An episode that has begun and is not stored yet.

    Attributes:
        index: among the task's episodes.
        slot: of the task's slots, from 0.
        start: the clock at its first step.
        seed: the environment's, and of random actions.
        behaviour: who acts.
        obs, action, reward, terminated, success: of the steps so far; one more observation, and
            none before the environment was reset.
        over: whether it has ended.
    """

    index: int
    slot: int
    start: int
    seed: int
    behaviour: str
    obs: list[np.ndarray] = field(default_factory=list)
    action: list[np.ndarray] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    terminated: list[bool] = field(default_factory=list)
    success: list[bool | None] = field(default_factory=list)
    over: bool = False
    _chance: RandomBehaviour | None = None
    _noise: np.ndarray | None = None

    def begin(self, slot: int) -> Begin:
        """The order that brings a simulator to where the episode is."""
        return Begin(slot, self.seed, self.action)

    def reach(self, obs: np.ndarray, clock: int) -> bool:
        """Takes the observation that a simulator has come to by :meth:`begin`.

        Returns whether it is the one that was known. If not, the environment does not follow from
        its seed, and the episode begins anew.
        """
        if not self.action:
            self.obs = [obs]
        elif not np.array_equal(obs, self.obs[-1]):
            for rows in (self.obs, self.action, self.reward, self.terminated, self.success):
                rows.clear()
            self.start = clock
            return False
        return True

    def random_action(self, task: Task) -> np.ndarray:
        """The next uniform action, which follows from the seed and the step."""
        if self._chance is None:
            self._chance = RandomBehaviour(task)
            self._chance.reset(np.random.default_rng(self.seed))
            for _ in self.action:
                self._chance.act(self.obs[-1])
        return self._chance.act(self.obs[-1])

    def noise(self, task: Task, color: float) -> np.ndarray:
        """The next step's colored noise, (action_dim,), which follows from seed and step."""
        if self._noise is None:
            rng = np.random.default_rng((self.seed, _OF_NOISE))
            self._noise = colored_noise(rng, task.episode_length, task.action_dim, color)
        row: np.ndarray = self._noise[len(self.action)]
        return row

    def add(self, action: np.ndarray, step: Stepped, task: Task) -> None:
        """Notes a step."""
        self.action.append(action)
        self.obs.append(step.obs)
        self.reward.append(step.reward)
        self.terminated.append(step.terminated)
        self.success.append(step.success)
        full = len(self.action) >= task.episode_length
        self.over = step.terminated or step.truncated or full

    def whole(self) -> Episode:
        """The episode as a store takes it."""
        known = None not in self.success
        return Episode(
            obs=np.array(self.obs, np.float32),
            action=np.array(self.action, np.float32),
            reward=np.array(self.reward, np.float32),
            terminated=np.array(self.terminated, bool),
            success=np.array(self.success, bool) if known else None,
            behaviour=self.behaviour,
            seed=self.seed,
        )


class TaskEpisodes:
    """A task's episodes: those that are stored, those that are over, and one under way per slot.

    Args:
        task: the task.
        seed: the collection's.
        slots: simulators of the task.
        random_episodes: how many have uniform actions.
        behaviour: the name of the others.

    Attributes:
        clock: steps of each slot.
        places: ``(start, slot)`` of every stored episode.
    """

    def __init__(
        self, task: Task, seed: int, slots: int, random_episodes: int, behaviour: str
    ) -> None:
        self.task, self._seed, self._slots = task, seed, slots
        self._random, self._behaviour = random_episodes, behaviour
        self.clock = 0
        self.places: list[tuple[int, int]] = []
        self._open: dict[int, SlotEpisode] = {}
        for slot in range(slots):
            self._begin(slot)

    def _begin(self, slot: int) -> None:
        index = self.begun
        name = "random" if index < self._random else self._behaviour
        seed = episode_seed(self._seed, self.task.name, index)
        self._open[index] = SlotEpisode(index, slot, self.clock, seed, name)

    @property
    def begun(self) -> int:
        """Episodes that have begun."""
        return len(self.places) + len(self._open)

    @property
    def complete(self) -> int:
        """Episodes that are over, up to the first that is not."""
        return len(self.places) + len(self._ready())

    def playing(self) -> list[SlotEpisode]:
        """The episode under way in each slot."""
        return sorted((e for e in self._open.values() if not e.over), key=lambda e: e.slot)

    def add(
        self, actions: Sequence[np.ndarray], steps: Sequence[Stepped]
    ) -> tuple[list[SlotEpisode], list[int]]:
        """Notes a step of every slot; the clock goes on, and where one ended another begins.

        Returns:
            The episodes that ended, and the slots where another has begun.
        """
        playing = self.playing()
        for episode, action, step in zip(playing, actions, steps, strict=True):
            episode.add(action, step, self.task)
        self.clock += 1
        ended = [episode for episode in playing if episode.over]
        for episode in ended:
            self._begin(episode.slot)
        return ended, [episode.slot for episode in ended]

    def _ready(self) -> list[SlotEpisode]:
        ready = []
        for index in range(len(self.places), self.begun):
            if not self._open[index].over:
                break
            ready.append(self._open[index])
        return ready

    def pop_ready(self, limit: int) -> list[Episode]:
        """Episodes to be stored next, in order, at most until so many are stored."""
        ready = self._ready()[: max(limit - len(self.places), 0)]
        for episode in ready:
            self.places.append((episode.start, episode.slot))
            del self._open[episode.index]
        return [episode.whole() for episode in ready]

    def transitions(
        self, stored: Sequence[Episode]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """All so far, an episode at a time: places in the order of time, and what is there.

        ``stored`` are the task's episodes of the store. Yields (T,) places, observations before
        and after, actions, rewards and whether the step terminated.
        """
        kept = list(zip(self.places, stored, strict=True))
        kept += [((e.start, e.slot), e.whole()) for e in self._open.values() if e.action]
        for (start, slot), episode in kept:
            places = (start + np.arange(len(episode.action))) * self._slots + slot
            obs, after = episode.obs[:-1], episode.obs[1:]
            yield places, obs, after, episode.action, episode.reward, episode.terminated

    def saved(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain data from which :meth:`restore` makes the same again."""
        arrays = {"places": np.array(self.places, np.int64).reshape(-1, 2)}
        facts = []
        for episode in self._open.values():
            fact = {k: getattr(episode, k) for k in ("index", "slot", "start", "behaviour", "over")}
            fact["known"] = None not in episode.success
            facts.append(fact)
            if episode.obs:
                rows = {"obs": episode.obs, "action": episode.action, "reward": episode.reward}
                arrays |= {
                    f"{episode.index}.{name}": np.array(values, np.float32)
                    for name, values in rows.items()
                }
                flags = [episode.terminated, [bool(s) for s in episode.success]]
                arrays[f"{episode.index}.flags"] = np.array(flags, bool)
        return arrays, {"clock": self.clock, "slots": self._slots, "open": facts}

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Restores what :meth:`saved` gave."""
        self.clock = facts["clock"]
        self.places = [(int(start), int(slot)) for start, slot in arrays["places"]]
        self._open = {}
        for fact in facts["open"]:
            given = dict(fact)
            known = given.pop("known")
            index = given["index"]
            episode = SlotEpisode(seed=episode_seed(self._seed, self.task.name, index), **given)
            if f"{index}.obs" in arrays:
                episode.obs = list(arrays[f"{index}.obs"])
                episode.action = list(arrays[f"{index}.action"].reshape(-1, self.task.action_dim))
                episode.reward = arrays[f"{index}.reward"].tolist()
                terminated, success = arrays[f"{index}.flags"].reshape(2, -1).tolist()
                episode.terminated = terminated
                episode.success = success if known else [None] * len(success)
            self._open[index] = episode
