"""The loop between agents of many tasks and the workers that step their simulators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pwm.core.progress import console
from pwm.core.signals import StopSignals
from pwm.core.worker_pool import Job, WorkerPool
from pwm.data.store import EpisodeStore
from pwm.simulation.agents_config import AgentsConfig
from pwm.simulation.agents_training import AgentsTraining, Member
from pwm.simulation.simulator_slots import Act, Begun, Order, Outcome, Stepped, play_slots


def record_agents(
    store: EpisodeStore,
    source: str,
    seed: int,
    config: AgentsConfig,
    wanted: Mapping[str, int],
    made: Mapping[str, int],
    pool: WorkerPool,
    signals: StopSignals,
    show: Callable[..., None],
) -> None:
    """Trains agents of all tasks in one loop, and stores their episodes, each task's in order.

    ``signals`` end it after the step that is under way; episodes that are not over are kept beside
    the agents. ``show`` is called with the ``completed`` episodes and a ``note``. Raises PwmError
    if an agent has no checkpoint, memory is short, or a simulator fails too often.
    """
    training = AgentsTraining(store, source, seed, config, wanted, made, show)
    loop = _Loop(training, config.envs_per_task, pool.workers, signals)
    for _ in pool.run(loop.next_job, loop.answer, together=True, meanwhile=loop.meanwhile):
        pass


class _Loop:
    """What each slot, numbered over all tasks, is told next."""

    def __init__(
        self, training: AgentsTraining, each: int, workers: int, signals: StopSignals
    ) -> None:
        self._training, self._each, self._signals = training, each, signals
        members = training.members
        slots = {i: members[i // each].task for i in range(len(members) * each)}
        # A step lasts as long as the slowest worker's, so each gets of slow and fast tasks alike.
        count = min(workers, len(slots))
        self._held = [list(slots)[first::count] for first in range(count)]
        jobs = []
        for held in self._held:
            parts = tuple(f"an episode of task '{slots[i].name}'" for i in held)
            jobs.append(Job(play_slots, ({i: slots[i] for i in held},), parts))
        self._waiting = dict(enumerate(jobs))
        self._slots_of = dict(zip(jobs, self._held, strict=True))
        self._to_begin: set[int] = set()
        self._active: list[Member] = []
        self._acts: dict[int, Act] = {}
        self._acted: list[list[np.ndarray]] = []
        self._came: dict[int, Stepped] = {}
        self._learns_next = self._told = False

    def next_job(self, worker: int) -> Job | None:
        """Each worker has one job, the slots that it holds."""
        return self._waiting.pop(worker, None)

    def answer(
        self, questions: Sequence[tuple[Job, list[Outcome] | None]]
    ) -> list[list[Order] | None]:
        """What each worker does next; None ends its job."""
        for job, outcomes in questions:
            if outcomes is None:  # it has begun, for the first time or after a fault
                self._to_begin |= {i for i in self._slots_of[job] if not self._member(i).finished}
            for outcome in outcomes or ():
                self._take(outcome)
        orders = self._orders()
        if orders is None:
            return [None] * len(questions)
        return [[orders[i] for i in self._slots_of[job] if i in orders] for job, _ in questions]

    def meanwhile(self) -> None:
        """The agents learn, once for every step of the simulators."""
        if self._learns_next:
            self._learns_next = False
            self._training.learn()

    def _member(self, slot: int) -> Member:
        return self._training.members[slot // self._each]

    def _take(self, outcome: Outcome) -> None:
        slot = outcome.slot
        if isinstance(outcome, Stepped):
            self._came[slot] = outcome
            return
        episodes = self._member(slot).episodes
        assert isinstance(outcome, Begun)
        if episodes.playing()[slot % self._each].reach(outcome.obs, episodes.clock):
            self._to_begin.discard(slot)

    def _orders(self) -> Mapping[int, Order] | None:
        if not self._to_begin and self._acts:
            if missing := {i: act for i, act in self._acts.items() if i not in self._came}:
                return missing  # of a worker that was replaced
            self._conclude()
        if self._to_begin:
            playing = {i: self._member(i).episodes.playing() for i in self._to_begin}
            return {i: of[i % self._each].begin(i) for i, of in playing.items()}
        return self._next_acts()

    def _conclude(self) -> None:
        came = {divmod(slot, self._each): step for slot, step in self._came.items()}
        begun = self._training.note(self._active, self._acted, came)
        slots = {member.number * self._each + slot for member, slot in begun}
        self._to_begin = {slot for slot in slots if not self._member(slot).finished}
        self._acts, self._came = {}, {}

    def _next_acts(self) -> Mapping[int, Order] | None:
        unfinished = [member for member in self._training.members if not member.finished]
        if self._signals.requested is not None or not unfinished:
            for member in unfinished:
                self._training.commit(member)
            return None
        if not self._told:
            held = f"{len(self._training.members) * self._each} simulators in {len(self._held)}"
            console.print(f"The simulators have started: {held} workers.")
            self._told = True
        least = min(member.episodes.clock for member in unfinished)
        self._active = [member for member in unfinished if member.episodes.clock == least]
        self._acted = self._training.act(self._active)
        for member, actions in zip(self._active, self._acted, strict=True):
            first = member.number * self._each
            self._acts |= {first + i: Act(first + i, action) for i, action in enumerate(actions)}
        self._learns_next = True
        return self._acts
