"""Evaluation: policies and baselines on the same episodes, in parallel environments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from pwm.core.described_tasks import tell_differences
from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.processes import available_cores
from pwm.core.progress import console
from pwm.core.protocols import other_protocols, protocol, with_metaworld
from pwm.core.settings import Choices, all_may_change, setting
from pwm.core.suites import SUITES, Suite, Task, task_names
from pwm.core.validation import (
    SEEDS,
    nearest,
    require_at_least,
    require_at_most,
    require_positive,
    require_resume,
    require_seed,
    require_share,
    require_valid,
    require_writable,
)
from pwm.core.worker_pool import MOST_WORKERS, WorkerPool
from pwm.data.inspection import unscorable
from pwm.data.shared_tasks import shared_tasks
from pwm.data.store import EpisodeStore
from pwm.evaluation.agents import AnyAgent, SavedPolicies, UniformActions
from pwm.evaluation.chosen_tasks import chosen_suite
from pwm.evaluation.episode_log import EpisodeLog
from pwm.evaluation.episode_queue import run_episodes
from pwm.evaluation.model_sizes import model_sizes
from pwm.evaluation.mppi import PlannerConfig
from pwm.evaluation.planning import PLANNER_ACTOR, PLANNERS, Planning
from pwm.evaluation.recording import recording_into
from pwm.evaluation.results_csv import write_csv
from pwm.evaluation.score_tables import print_results
from pwm.evaluation.scores import (
    DECISION_TIMES,
    EXTRACTED,
    OWN_TASKS,
    Results,
    TaskScore,
    score_data,
)
from pwm.evaluation.videos import require_frames, require_video, write_strips, write_videos
from pwm.extraction.behavior_cloning import CloningConfig, saved_clones
from pwm.models.policy import Policy
from pwm.models.policy_directory import find_policies, policy_path, policy_tasks
from pwm.models.world_models import WorldModels, load_world_models
from pwm.runtime.device import resolve_device, use_device
from pwm.runtime.run_dir import open_run, require_output
from pwm.simulation.watched_env import require_environments

SCORED_DATA = ("data_mean", "data_best")
CLONES = ("bc", "bc_best")
FROM_DATA = (*CLONES, *SCORED_DATA)
BASELINES = ("random", *FROM_DATA, *PLANNERS)
OUTCOMES, VIDEOS, STRIPS = "outcomes.jsonl", "videos", "strips"


@all_may_change  # an episode is kept with all that decided how it went
@dataclass
class EvaluateConfig:
    """Settings of ``pwm evaluate``.

    Attributes:
        policy: a directory of policies, one per task; one policy's directory; ``planner``, which
            plans with the policy prior and Q ensemble of a world model; or ``planner+actor``,
            which plans with extracted policies and their critics in the place of those.
        out: gets results.json, results.csv, decision_times.json, throughput.json, videos and
            strips; also outcomes.jsonl, the episodes played so far, and the cloned policies.
        tasks: a suite's name, tasks joined with commas or in a list, or null for every task that
            there is a policy for.
        episodes: per task.
        seed: of the first episode's environment; episode i has seed + i.
        baselines: run on the same episodes: any of random, bc, bc_best, data_mean, data_best,
            planner, planner+actor.
        bc_top_fraction: the share of episodes, the best, that bc_best clones.
        data: the episode store that bc, bc_best, data_mean and data_best are made from.
        checkpoint: the planners' world model: a pretraining run or one checkpoint.
        policies: the extracted policies of planner+actor, where policy is none.
        planner: settings of planning.
        device: where the planners run; policies run on the CPU.
        video: episodes per task to write as MP4.
        strip: episodes per task to write as a strip of eight frames.
        workers: processes that simulate; null for one per core. Does not change the results.
        batch: episodes of a task that are played side by side, on which a policy acts as one
            batch; another number changes the last bits of its actions.
        worker_timeout: seconds that a simulator may take for one step before its worker counts
            as hung and is replaced; likewise one that dies or fails.
        max_faults: this many faults in the same episodes, which are played again after each, end
            the command.
        metaworld: decision steps of Meta-World's episodes x control steps of each, such as
            ``500x1``; null for what the policies or the world model were made for. Tables mark it.
        record: an episode store, made if it does not exist, that gets the episodes of ``policy``
            which are played now.
    """

    presets: ClassVar[Choices] = {"launcher": "local"}

    policy: str = setting(MISSING, input_path=True, words=PLANNERS)
    out: str = MISSING
    tasks: Any = None
    episodes: int = 10
    seed: int = 1000
    baselines: list[str] = field(default_factory=lambda: ["random"])
    bc_top_fraction: float = 0.1
    cloning: CloningConfig = field(default_factory=CloningConfig)
    data: str | None = setting(None, input_path=True)
    checkpoint: str | None = setting(None, input_path=True)
    policies: str | None = setting(None, input_path=True)
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    device: str = "auto"
    video: int = 0
    strip: int = 0
    workers: int | None = None
    batch: int = 5
    worker_timeout: float = 120.0
    max_faults: int = 5
    resume: str = "auto"
    metaworld: str | None = None
    record: str | None = None

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        for name in self.baselines:
            if name not in BASELINES:
                hint = nearest(name, BASELINES) or ";"
                raise PwmError(f"unknown baseline {name}{hint} choose from {', '.join(BASELINES)}.")
        if self.data is None and set(self.baselines) & set(FROM_DATA):
            raise PwmError(
                f"baselines={self.baselines} are made from data; give data=DIR or leave "
                f"{', '.join(FROM_DATA)} out."
            )
        if self.planners and self.checkpoint is None:
            raise PwmError(f"{self.planners[0]} plans on a world model; give it as checkpoint=DIR.")
        if PLANNER_ACTOR in self.planners and self.policy_directory is None:
            raise PwmError(f"{PLANNER_ACTOR} needs extracted policies; give them as policies=DIR.")
        if self.policies is not None and self.policy not in PLANNERS:
            raise PwmError("policies= goes with policy=planner+actor; policy= already names some.")
        require_valid("planner", self.planner)
        require_valid("cloning", self.cloning)
        require_at_least(self, 1, "episodes", "batch", "max_faults")
        require_at_least(self, 0, "video", "strip")
        require_seed(self, "seed")
        if self.seed + self.episodes > SEEDS:
            raise PwmError(
                f"seed={self.seed} is too large for episodes={self.episodes}: episode i has seed "
                f"{self.seed} + i, and seeds are below {SEEDS}."
            )
        if self.workers is not None:
            require_at_least(self, 1, "workers")
            require_at_most(self, MOST_WORKERS, "workers")
        require_positive(self, "bc_top_fraction", "worker_timeout")
        require_share(self, "bc_top_fraction")
        require_resume(self)
        resolve_device(self.device)
        if self.tasks is not None:
            task_names(self.tasks)
        with_metaworld(SUITES["mt80"], self.metaworld)
        if self.video or self.strip:
            require_video()
        require_output(self)
        if self.record is not None:
            require_writable(self.record)

    def as_job(self) -> EvaluateConfig:
        """These settings for one of several jobs, which has some of the tasks.

        Policies are cloned for all tasks together, and so not in a job.
        """
        if self.record is not None:
            raise PwmError("one store is not written by several jobs; leave record= out.")
        return replace(self, baselines=[name for name in self.baselines if name not in CLONES])

    @property
    def method(self) -> str:
        """What is evaluated: ``extracted`` policies, or one of PLANNERS."""
        return self.policy if self.policy in PLANNERS else EXTRACTED

    @property
    def planners(self) -> list[str]:
        """The planners among the methods."""
        return [name for name in PLANNERS if name in (self.policy, *self.baselines)]

    @property
    def policy_directory(self) -> str | None:
        """Where extracted policies are, if any are used."""
        return self.policies if self.policy in PLANNERS else self.policy


@dataclass(frozen=True)
class _Inputs:
    """The models, policies and data of an evaluation, read before anything is written."""

    config: EvaluateConfig
    models: WorldModels | None
    policies: Mapping[str, Policy]
    suite: Suite
    store: EpisodeStore | None

    @classmethod
    def read(cls, config: EvaluateConfig) -> _Inputs:
        """Read what a config names; raise PwmError for what is missing or damaged."""
        models = None
        if config.planners:
            assert config.checkpoint is not None
            models = load_world_models(config.checkpoint, use_device(config.device))
        directory = config.policy_directory
        if directory is not None:
            known, owner = policy_tasks(Path(directory)), directory
        else:
            assert models is not None
            known, owner = {task.name: task for task in models.suite}, str(config.checkpoint)
        suite = chosen_suite(config.tasks, known, owner)
        policies = {}
        if directory is not None:
            policies = find_policies(Path(directory), suite.names)
        suite = Suite(suite.name, require_environments(suite))
        store = EpisodeStore.open(config.data) if config.data is not None else None
        inputs = cls(config, models, policies, suite, store)
        inputs.require_fit()
        return inputs

    @property
    def played(self) -> Suite:
        """The tasks as they are played, under the protocol that is asked for."""
        return with_metaworld(self.suite, self.config.metaworld)

    def require_fit(self) -> None:
        """Raise PwmError for what a method would lack when its turn comes, perhaps hours later."""
        if self.config.video or self.config.strip:
            require_frames(self.suite)
        for name in self.config.planners:
            self.planning(name)
        wanted = set(self.config.baselines)
        if self.store is not None and wanted & set(FROM_DATA):
            shared_tasks(self.store, self.suite, self.suite.names)  # raises where sizes differ
            tell_differences(self.suite, "what is played", self.store.suite, self.store.path)
            for task in self.suite:
                self._require_episodes(self.store, task, scored=bool(wanted & set(SCORED_DATA)))

    def _require_episodes(self, store: EpisodeStore, task: Task, scored: bool) -> None:
        if not store.count(task.name):
            raise PwmError(
                f"{store.path} has no episodes of {task.name}, and {', '.join(FROM_DATA)} are made "
                "from them; leave these baselines or this task out."
            )
        own, played = protocol(store.suite[task.name]), protocol(self.played[task.name])
        if scored and task.domain == "metaworld" and own != played:
            raise PwmError(
                f"the episodes of {task.name} in {store.path} are of protocol {own}, and {played} "
                f"is played; leave {' and '.join(SCORED_DATA)} out of baselines."
            )
        if scored and (fault := unscorable(store, task)):
            raise PwmError(
                f"{store.path} has {fault} of {task.name}, which cannot be scored; leave "
                f"{' and '.join(SCORED_DATA)} out of baselines."
            )

    def planning(self, planner: str) -> Planning:
        """A planner on the world models; raises PwmError if one lacks what it needs, or a task."""
        assert self.models is not None
        directory = Path(self.config.policy_directory or "")
        return Planning(planner, self.models, self.suite, self.policies, directory)


def evaluate(config: EvaluateConfig) -> Results:
    """Score policies and baselines in the simulators, write and print the results.

    Episodes are kept as they end, so an evaluation that was stopped in whatever way goes on from
    there when it is called again.

    Raises:
        PwmError: for settings that do not fit, missing policies, or a simulator that fails.
    """
    config.validate()
    inputs = _Inputs.read(config)
    suite, out = inputs.played, Path(config.out)
    seeds = [config.seed + i for i in range(config.episodes)]
    with open_run(out, "evaluate", config):
        data_scores = _data_scores(inputs)
        agents = _agents(inputs)
        workers = config.workers or available_cores()
        with (
            recording_into(config.record, suite, config.method, agents[config.method]) as recording,
            WorkerPool(
                workers, config.worker_timeout, config.max_faults, notify=console.print
            ) as pool,
        ):
            log = EpisodeLog(out / OUTCOMES)
            played = run_episodes(agents, suite.tasks, seeds, config.batch, pool, log, recording)
        scores = played.scores(suite)
        results = Results.build(
            suite,
            scores.pop(config.method),
            scores | data_scores,
            method=config.method,
            episodes=config.episodes,
            seeds=seeds,
            settings=_settings(inputs),
        )
        times = played.decision_ms()
        results.save(out / "results.json")
        write_csv(results, out / "results.csv")
        write_atomically(out / DECISION_TIMES, json.dumps(times, indent=1).encode())
        rates = played.throughput(pool.workers) if played.steps else {}
        if rates:
            content = json.dumps({**rates, "faults": dict(pool.faults)}, indent=1)
            write_atomically(out / "throughput.json", content.encode())
        if config.video:
            some = seeds[: config.video]
            write_videos(agents[config.method], suite.tasks, some, out / VIDEOS)
        if config.strip:
            some = seeds[: config.strip]
            write_strips(agents[config.method], suite.tasks, some, out / STRIPS)
    print_results(results, decision_ms=times)
    if rates:
        console.print(played.speed(workers))
        if report := pool.report():
            console.print(report)
    return results


def _agents(inputs: _Inputs) -> dict[str, AnyAgent]:
    """The agents that play, by the name of the method."""
    config, suite, store = inputs.config, inputs.suite, inputs.store
    agents: dict[str, AnyAgent] = {}
    directory = Path(config.policy_directory or "")
    extracted = SavedPolicies.at({name: policy_path(directory, name) for name in inputs.policies})
    if config.method == EXTRACTED:
        agents[EXTRACTED] = extracted
    if "random" in config.baselines:
        agents["random"] = UniformActions()
    for name, best in (("bc", 1.0), ("bc_best", config.bc_top_fraction)):
        if name in config.baselines and store is not None:
            to = Path(config.out) / "cloned" / name
            clones = saved_clones(to, store, suite.tasks, best, config.cloning, config.seed)
            agents[name] = SavedPolicies.at(clones)
    for name in config.planners:
        digests = {"policies": extracted.digests} if name == PLANNER_ACTOR else {}
        agents[name] = inputs.planning(name).agent(config.planner, digests)
    return agents


def _settings(inputs: _Inputs) -> dict[str, Any]:
    """How the results were made, for results.json."""
    config, store = inputs.config, inputs.store
    settings: dict[str, Any] = {
        "policy": config.policy,
        "data": config.data,
        "world_model": model_sizes(
            inputs.policies.values(), inputs.models.models if inputs.models else ()
        ),
        "data_rows": {t.name: store.record(t.name).rows for t in inputs.suite} if store else None,
    }
    if own := [task.table() for task in inputs.suite if task.domain == "gymnasium"]:
        settings[OWN_TASKS] = own
    if config.planners:
        settings["checkpoint"] = config.checkpoint
        settings["policies"] = config.policy_directory
        settings["planner"] = asdict(config.planner)
    if protocols := other_protocols(inputs.played):
        settings["protocols"] = protocols
    return settings


def _data_scores(inputs: _Inputs) -> dict[str, dict[str, TaskScore]]:
    wanted = {name: i for i, name in enumerate(SCORED_DATA) if name in inputs.config.baselines}
    if inputs.store is None or not wanted:
        return {}
    tables = {task: inputs.store.episodes(task.name) for task in inputs.suite}
    columns = ("return", "success_last", "success_any")
    found = {task.name: score_data(task, *(t[c] for c in columns)) for task, t in tables.items()}
    return {name: {task: both[i] for task, both in found.items()} for name, i in wanted.items()}
