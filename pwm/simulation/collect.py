"""Making offline data on the spot: behaviours acting in the simulators, into an episode store."""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pwm.core.errors import PwmError
from pwm.core.files import directory_sha256
from pwm.core.layout import MANIFEST_NAME
from pwm.core.processes import available_cores
from pwm.core.progress import console, progress_bar
from pwm.core.protocols import with_metaworld
from pwm.core.settings import Choices, setting
from pwm.core.signals import StopSignals
from pwm.core.suites import Suite, Task, get_suite, task_names
from pwm.core.validation import (
    require_at_least,
    require_at_most,
    require_choice,
    require_positive,
    require_resume,
    require_seed,
    require_valid,
    require_writable,
)
from pwm.core.worker_pool import MOST_WORKERS, Job, WorkerPool
from pwm.data.episode import Episode
from pwm.data.inspection import info
from pwm.data.manifest import Manifest
from pwm.data.store import EpisodeStore, success_known
from pwm.simulation.behaviors import BEHAVIOURS, PolicyNoise, can_hold, has_controller
from pwm.simulation.remade import POLICY_DIGESTS, note_environments, tell_other_policy
from pwm.simulation.rollout import Recipe, collect_episode, episode_seed
from pwm.simulation.sac_collection import record_training
from pwm.simulation.sac_config import (
    LEARNERS,
    SacConfig,
    Training,
    describe_learner,
    require_learner,
    require_prior,
)
from pwm.simulation.simulator_mpc import SimulatorMPCConfig, can_plan
from pwm.simulation.watched_env import require_environments

_COMMIT_EVERY = 50
_JOBS_AHEAD = 8  # per worker, of the episode that is to be stored next


@dataclass
class CollectConfig:
    """Settings of ``pwm collect``.

    Attributes:
        out: the store's directory; made if it does not exist, appended to if it does.
        suite: a suite, a task, or several tasks, in a list or joined with commas.
        episodes: episodes per task, or a mapping from task name to episodes.
        seed: everything drawn follows from it; another seed adds other episodes.
        workers: processes, 0 for one per available core. Does not change the data.
        behaviour: ``mixed`` (each task's default mixture), ``random``, ``ou``, ``scripted``,
            ``held`` (Meta-World's scripts, which hold still while they succeed), ``mpc``
            (planning on dm_control's simulator), ``policy``, or an agent that learns from its
            episodes: ``sac`` or ``tqc``.
        policy: for ``policy``, the directory of the policy, or of many tasks' policies.
        policy_noise: standard deviation of the noise on the policy's actions; of a list each
            episode draws one.
        policy_noise_correlation: of the noise from one step to the next, at least 0 and below 1;
            likewise.
        worker_timeout: seconds that a simulator may take for one step before its worker counts
            as hung and is replaced; likewise one that dies or fails.
        max_faults: of one episode, which is run again after each; this many end the command.
        resume: ``auto`` goes on with what is in ``out`` or adds to it; ``never`` refuses it.
        mpc: of behaviour ``mpc``, how much it tries.
        sac: of behaviours ``sac`` and ``tqc``, how the agents learn.
        metaworld: decision steps of Meta-World's episodes x control steps of each, such as
            ``500x1``; null for the benchmark's ``100x2``. What learns from the data keeps it.
    """

    presets: ClassVar[Choices] = {"launcher": "local", "collect": None}

    out: str
    suite: Any = setting("quick", may_change=True)
    episodes: Any = setting(100, may_change=True)
    seed: int = 0
    workers: int = setting(0, may_change=True)
    behaviour: str = "mixed"
    policy: str | None = setting(None, input_path=True)
    policy_noise: Any = 0.1
    policy_noise_correlation: Any = 0.0
    worker_timeout: float = setting(120.0, may_change=True)
    max_faults: int = setting(5, may_change=True)
    resume: str = "auto"
    mpc: SimulatorMPCConfig = field(default_factory=SimulatorMPCConfig)
    sac: SacConfig = field(default_factory=SacConfig)
    metaworld: str | None = None

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_seed(self, "seed")
        require_at_least(self, 0, "workers")
        require_at_most(self, MOST_WORKERS, "workers")
        require_positive(self, "worker_timeout")
        require_at_least(self, 1, "max_faults")
        if Path(self.behaviour).is_dir():
            raise PwmError(
                f"behaviour={self.behaviour} is a directory; its policies act by "
                f"behaviour=policy policy={self.behaviour}."
            )
        require_choice(self, "behaviour", ("mixed", *BEHAVIOURS, *LEARNERS))
        require_valid("mpc", self.mpc)
        require_valid("sac", self.sac)
        if self.behaviour in LEARNERS:
            require_learner(self.behaviour, self.sac)
        if (self.behaviour == "policy") != (self.policy is not None):
            raise PwmError("behaviour=policy and policy=DIR go together; give both or neither.")
        suite = collected_suite(self)
        wanted = _episodes_per_task(self.episodes, suite)
        for behaviour, possible, what in (
            ("scripted", has_controller, "no scripted controller"),
            ("held", can_hold, "no script that could hold still"),
            ("mpc", can_plan, "no planning on the simulator"),
        ):
            lacking = [name for name, n in wanted.items() if n and not possible(suite[name])]
            if self.behaviour == behaviour and lacking:
                raise PwmError(
                    f"there is {what} for {', '.join(lacking)}; use behaviour=mixed, or leave "
                    "these tasks out."
                )
        self.noise()
        require_writable(self.out)
        require_resume(self, Path(self.out) / MANIFEST_NAME)

    def as_job(self) -> CollectConfig:
        """These settings for one of several jobs, which has some of the tasks."""
        if not isinstance(self.episodes, Mapping):
            return self
        own = task_names(self.suite)
        return replace(self, episodes={t: n for t, n in self.episodes.items() if str(t) in own})

    def noise(self) -> PolicyNoise:
        """What is added to a policy's actions; raises PwmError for values that cannot work."""
        return PolicyNoise(
            _numbers("policy_noise", self.policy_noise, math.inf),
            _numbers("policy_noise_correlation", self.policy_noise_correlation, 1.0),
        )


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
    wanted = _episodes_per_task(config.episodes, suite)
    recipe = _recipe(config)
    learns = config.behaviour in LEARNERS
    if recipe.behaviour == "policy":
        for task in suite:
            recipe.make("policy", task)  # raises for a policy that is not of this task
    suite = Suite(suite.name, require_environments(suite))
    description = _describe(recipe, suite)
    if learns:
        description |= describe_learner(config.behaviour, config.sac)
    source = _source_key(recipe, description)
    limits = config.workers or available_cores(), config.worker_timeout, config.max_faults
    with (
        _open_or_create(Path(config.out), suite) as store,
        StopSignals() as signals,
        WorkerPool(*limits, ahead=2, notify=console.print) as pool,
    ):
        if learns:
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
                if learns:
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
    wanted = _episodes_per_task(config.episodes, suite)
    recipe = _recipe(config)
    description = _describe(recipe, suite)
    source = _source_key(recipe, description)
    with _open_or_create(Path(config.out), suite) as store:
        note_environments(store, suite.names, opened.values())
        store.add_source(source, description)
        made = {task: store.count(task, source) for task in wanted}
        entries = _episodes(suite, made, wanted)
        found = ((e, opened[e.task.name].episode(e.task.name, e.index)) for e in entries)
        _append(store, source, found)


def _recipe(config: CollectConfig) -> Recipe:
    return Recipe(config.seed, config.behaviour, config.policy, config.noise(), config.mpc)


def collected_suite(config: CollectConfig) -> Suite:
    """The tasks to collect, which the store may know already."""
    path = Path(config.out)
    known = Manifest.read(path).suite if (path / MANIFEST_NAME).exists() else ()
    return with_metaworld(get_suite(config.suite, known), config.metaworld)


def _episodes_per_task(episodes: Any, suite: Suite) -> dict[str, int]:
    if isinstance(episodes, Mapping):
        wanted = {suite[str(name)].name: count for name, count in episodes.items()}
    else:
        wanted = dict.fromkeys(suite.names, episodes)
    for task, count in wanted.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise PwmError(
                f"episodes={count!r} for task '{task}' is not a number of episodes; give a whole "
                "number, or one for each task such as '{walker-run: 50}'."
            )
    if not any(wanted.values()):
        raise PwmError(f"episodes={episodes} asks for no episode; give a number of at least 1.")
    return wanted


def _numbers(name: str, given: Any, below: float) -> tuple[float, ...]:
    """A setting that is a number or a list of them, each at least 0 and below a bound."""
    values = given if isinstance(given, list | tuple) else [given]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not values or not numeric or not all(0 <= value < below for value in values):
        most = "" if below == math.inf else f" and below {below:g}"
        raise PwmError(
            f"{name}={given} must be a number of at least 0{most}, or a list of such numbers."
        )
    return tuple(float(value) for value in values)


def _describe(recipe: Recipe, suite: Suite) -> dict[str, Any]:
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
    return description


def _source_key(recipe: Recipe, description: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    return f"collect-{recipe.behaviour}-seed{recipe.seed}-{digest[:8]}"


def _open_or_create(path: Path, suite: Suite) -> EpisodeStore:
    if not (path / MANIFEST_NAME).exists():
        return EpisodeStore.create(path, suite)
    store = EpisodeStore.open(path, "a")
    for task in suite:
        if task.name not in store.suite or store.suite[task.name] != task:
            store.close()
            raise PwmError(
                f"{path} was made for suite '{store.suite.name}', whose tasks do not include "
                f"'{task.name}' as it is here; collect into another directory."
            )
    return store


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
