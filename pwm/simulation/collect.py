"""Making offline data on the spot: behaviours acting in the simulators, into an episode store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pwm.core.files import directory_sha256
from pwm.core.fingerprints import fingerprint
from pwm.core.processes import available_cores
from pwm.core.progress import console, progress_bar
from pwm.core.signals import StopSignals
from pwm.core.suites import Suite, Task
from pwm.core.worker_pool import Job, WorkerPool
from pwm.data.episode import Episode
from pwm.data.inspection import info
from pwm.data.ranking import success_known
from pwm.data.store import EpisodeStore
from pwm.simulation.agents_config import AGENTS, describe_agents
from pwm.simulation.behaviors import PolicyNoise
from pwm.simulation.collect_config import CollectConfig, collected_suite, episodes_per_task
from pwm.simulation.opened_store import open_or_create
from pwm.simulation.remade import POLICY_DIGESTS, note_environments, tell_other_policy
from pwm.simulation.rollout import Recipe, collect_episode, episode_seed
from pwm.simulation.sac_collection import record_training
from pwm.simulation.sac_config import (
    LEARNERS,
    Training,
    describe_learner,
    require_prior,
)
from pwm.simulation.simulator_mpc import SimulatorMPCConfig
from pwm.simulation.watched_env import require_environments

_COMMIT_EVERY = 50
_JOBS_AHEAD = 8  # per worker, of the episode that is to be stored next


def collect(config: CollectConfig) -> Path:
    """Collects episodes into a store and prints a summary of it.

    The same settings give the byte-identical store whatever the number of workers. Run again,
    the same settings go on where an interrupted collection stopped, and more episodes add to it;
    another seed or behaviour adds another source to the same store.

    Returns:
        The store's directory.

    Raises:
        PwmError: for settings that do not fit, or when an episode fails ``max_faults`` times.
        Interrupted: after committing every whole episode, when SIGINT or SIGTERM asked for it.
    """
    config.validate()
    suite = collected_suite(config)
    wanted = episodes_per_task(config.episodes, suite)
    recipe = _recipe(config)
    if recipe.behaviour == "policy":
        for task in suite:
            recipe.make("policy", task)  # raises for a policy that is not of this task
    suite = Suite(suite.name, require_environments(suite))
    description = _describe(config, recipe, suite)
    if config.behaviour in LEARNERS:
        description |= describe_learner(config.behaviour, config.sac)
    source = _source_key(recipe, description)
    limits = config.workers or available_cores(), config.worker_timeout, config.max_faults
    with (
        open_or_create(Path(config.out), suite) as store,
        StopSignals() as signals,
        WorkerPool(*limits, ahead=2, notify=console.print) as pool,
    ):
        if config.behaviour in LEARNERS:
            require_prior(store, config.sac)
        note_environments(store, suite.names)
        tell_other_policy(store, config.policy, source, description)
        store.add_source(source, description)
        made = {task: store.count(task, source) for task in wanted}
        if kept := sum(min(made[task], count) for task, count in wanted.items()):
            console.print(
                f"{config.out} has {kept} of these episodes already; they are kept.",
                soft_wrap=True,
            )
        if total := sum(max(count - made[task], 0) for task, count in wanted.items()):
            with progress_bar() as progress:
                bar = progress.add_task("collect", total=total, note="")
                show = partial(progress.update, bar)
                if config.behaviour == AGENTS:
                    from pwm.simulation.agents_collection import record_agents  # it loads torch

                    learned = config.seed, config.agents, wanted, made
                    record_agents(store, source, *learned, pool, signals, show)
                elif config.behaviour in LEARNERS:
                    behaviour, seed, sac = config.behaviour, config.seed, config.sac
                    training = Training(behaviour, seed, store.path, source, sac)
                    record_training(store, training, wanted, made, pool, signals, show)
                else:
                    entries = _episodes(store.suite, made, wanted)
                    _append(store, source, _in_order(pool, recipe, entries, signals), show)
        signals.raise_if_requested(
            f"stopped; every whole episode is in {config.out}. The same command goes on from there."
        )
        console.print(info(store))
        _note_unknown_success(store)
    if report := pool.report():
        console.print(report)
    return Path(config.out)


def _note_unknown_success(store: EpisodeStore) -> None:
    for task in store.suite:
        if task.scored_by_success and not success_known(store, task.name).all():
            console.print(
                f"{task.name} is scored by success, and its environment does not report it in all "
                "episodes: let its step's info have success (or is_success), also where it is "
                "False. Until then it is stored as not known, and the data have no score.",
                markup=False,
            )


def join_stores(config: CollectConfig, parts: Mapping[str, Path]) -> None:
    """Make the store that :func:`collect` would have made from stores of single tasks.

    Args:
        config: of the collection of all tasks; the store is its ``out``.
        parts: by task name, a store that has this task's episodes of the same settings.

    Raises:
        PwmError: if a part lacks episodes, cannot be read, or the store cannot be written.
    """
    opened = {task: EpisodeStore.open(path) for task, path in parts.items()}
    named = collected_suite(config)
    tasks = (opened[t.name].suite[t.name] if t.name in opened else t for t in named)
    suite = Suite(named.name, tuple(tasks))
    wanted = episodes_per_task(config.episodes, suite)
    recipe = _recipe(config)
    description = _describe(config, recipe, suite)
    source = _source_key(recipe, description)
    with open_or_create(Path(config.out), suite) as store:
        note_environments(store, suite.names, opened.values())
        store.add_source(source, description)
        made = {task: store.count(task, source) for task in wanted}
        entries = _episodes(suite, made, wanted)
        found = ((e, opened[e.task.name].episode(e.task.name, e.index)) for e in entries)
        _append(store, source, found)


def _recipe(config: CollectConfig) -> Recipe:
    return Recipe(config.seed, config.behaviour, config.policy, config.noise(), config.mpc)


def _describe(config: CollectConfig, recipe: Recipe, suite: Suite) -> dict[str, Any]:
    """How the episodes are made; a policy is named by its content, since its path may change."""
    description = {"made_by": "pwm collect", "behaviour": recipe.behaviour, "seed": recipe.seed}
    if recipe.policy is not None:
        from pwm.models.policy_directory import policy_path  # here, for workers do without torch

        directory, noise = Path(recipe.policy), recipe.policy_noise or PolicyNoise()
        description[POLICY_DIGESTS] = {
            task.name: directory_sha256(policy_path(directory, task.name)) for task in suite
        }
        description["policy_noise"] = list(noise.sigmas)
        description["policy_noise_correlation"] = list(noise.correlations)
    if recipe.behaviour == "mpc" and recipe.planner != SimulatorMPCConfig():
        description["planner"] = asdict(recipe.planner)
    if config.behaviour == AGENTS:
        description |= describe_agents(config.agents)
    return description


def _source_key(recipe: Recipe, description: Mapping[str, Any]) -> str:
    return f"collect-{recipe.behaviour}-seed{recipe.seed}-{fingerprint(description)[:8]}"


@dataclass(frozen=True)
class _Next:
    """An episode to make, and whether it is followed by a commit."""

    task: Task
    index: int
    commit: bool


def _episodes(suite: Suite, first: Mapping[str, int], wanted: Mapping[str, int]) -> Iterator[_Next]:
    """Task after task; commits fall on the same episodes however often the run was stopped."""
    for task, count in wanted.items():
        for index in range(first[task], count):
            yield _Next(suite[task], index, (index + 1) % _COMMIT_EVERY == 0 or index + 1 == count)


def _append(
    store: EpisodeStore,
    source: str,
    made: Iterator[tuple[_Next, Episode]],
    show: Callable[..., None] = lambda **progress: None,
) -> None:
    whole: list[Episode] = []
    task = ""
    try:
        for entry, episode in made:
            whole.append(episode)
            task = entry.task.name
            if entry.commit:
                store.append(task, whole, source)
                whole = []
            show(advance=1, note=task)
    finally:
        if whole:
            store.append(task, whole, source)


def _in_order(
    pool: WorkerPool, recipe: Recipe, entries: Iterator[_Next], signals: StopSignals
) -> Iterator[tuple[_Next, Episode]]:
    """Episodes in the order of the entries, until a signal comes."""
    begun: deque[tuple[_Next, Job]] = deque()
    finished: dict[Job, Episode] = {}

    def next_job(worker: int) -> Job | None:
        if signals.requested is not None or len(begun) >= _JOBS_AHEAD * pool.workers:
            return None
        if (entry := next(entries, None)) is None:
            return None
        seed = episode_seed(recipe.seed, entry.task.name, entry.index)
        part = f"episode {entry.index} of task '{entry.task.name}' (seed {seed})"
        begun.append((entry, Job(collect_episode, (recipe, entry.task, seed), (part,))))
        return begun[-1][1]

    for job, episode in pool.run(next_job):
        finished[job] = episode
        while begun and begun[0][1] in finished:
            entry, first = begun.popleft()
            yield entry, finished.pop(first)
