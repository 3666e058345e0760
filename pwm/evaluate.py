"""Evaluation: policies and baselines on the same episodes, in parallel environments."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING
from rich.progress import Progress, TaskID

from pwm.actor_critic import Policy, load_critic, load_policy
from pwm.checkpoint import is_checkpoint
from pwm.cloning import CloningConfig, clone
from pwm.dataset import EpisodeStore
from pwm.devices import resolve_device
from pwm.errors import PwmError
from pwm.files import write_atomically
from pwm.methods import Method, Separate, Timed, random_controller
from pwm.planner import ActorAndCritic, Guide, PlannedEpisodes, Planner, PlannerConfig, PriorAndQ
from pwm.progress import progress_bar
from pwm.rundir import open_run
from pwm.scores import (
    DECISION_TIMES,
    EXTRACTED,
    Results,
    TaskScore,
    print_results,
    score_data,
    score_task,
    write_csv,
)
from pwm.settings import require_at_least, require_positive, require_share
from pwm.suites import SUITES, Suite, Task, get_suite
from pwm.tdmpc2_checkpoints import size_name
from pwm.tdmpc2_data import unscorable
from pwm.world_model import ModelSize, WorldModel, load_world_model

PLANNER, PLANNER_ACTOR = "planner", "planner+actor"
PLANNERS = (PLANNER, PLANNER_ACTOR)
FROM_DATA = ("bc", "bc_best", "data_mean", "data_best")
BASELINES = ("random", *FROM_DATA, *PLANNERS)


@dataclass
class EvaluateConfig:
    """Settings of ``pwm evaluate``.

    Attributes:
        policy: a directory of policies, one a task; one policy's directory; ``planner``, which
            plans with the policy prior and Q ensemble of a world model; or ``planner+actor``,
            which plans with extracted policies and their critics in the place of those.
        out: gets results.json, results.csv, decision_times.json and videos.
        tasks: a list, a suite's name, or null for every task that there is a policy for.
        episodes: a task.
        seed: of the first episode's environment; episode i has seed + i.
        baselines: run on the same episodes: any of random, bc, bc_best, data_mean, data_best,
            planner, planner+actor.
        best: the share of episodes that bc_best clones.
        data: the episode store that bc, bc_best, data_mean and data_best are made from.
        checkpoint: the planners' world model: a pretraining run or one checkpoint.
        policies: the extracted policies of planner+actor, where policy is none.
        planner: settings of planning.
        device: where the planners run; policies run on the CPU.
        video: episodes a task to write as MP4.
        workers: environment processes; null for one a core.
        max_envs: environments that are alive at once; a planner plans for all of them together.
    """

    policy: str = MISSING
    out: str = MISSING
    tasks: Any = None
    episodes: int = 10
    seed: int = 1000
    baselines: list[str] = field(default_factory=lambda: ["random"])
    best: float = 0.1
    cloning: CloningConfig = field(default_factory=CloningConfig)
    data: str | None = None
    checkpoint: str | None = None
    policies: str | None = None
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    device: str = "auto"
    video: int = 0
    workers: int | None = None
    max_envs: int = 64
    resume: str = "auto"

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        unknown = sorted(set(self.baselines) - set(BASELINES))
        if unknown:
            raise PwmError(
                f"unknown baseline {', '.join(unknown)}; choose from {', '.join(BASELINES)}."
            )
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
        self.planner.validate()
        require_at_least(self, 1, "episodes", "max_envs")
        require_at_least(self, 0, "seed", "video")
        if self.workers is not None:
            require_at_least(self, 1, "workers")
        require_positive(self, "best")
        require_share(self, "best")

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


@dataclass
class Outcomes:
    """What n episodes of one task gave: three arrays (n,)."""

    returns: np.ndarray
    success_last: np.ndarray
    success_any: np.ndarray

    def score(self, task: Task) -> TaskScore:
        """The task's entry in results.json."""
        return score_task(task, self.returns, self.success_last, self.success_any)


def find_policies(path: Path, tasks: Sequence[str] | None = None) -> dict[str, Policy]:
    """Policies by task name, in the suite's order.

    Args:
        path: a directory of policies, one a task, or a single policy's directory.
        tasks: the tasks wanted; all that are there by default.

    Raises:
        PwmError: if there is none, or one that was asked for is missing.
    """
    if is_checkpoint(path):
        policy = load_policy(path)
        found = {policy.task.name: policy}
    else:
        children = sorted(path.iterdir()) if path.is_dir() else []
        found = {p.name: load_policy(p) for p in children if is_checkpoint(p)}
    if not found:
        raise PwmError(f"{path} holds no policy; give what `pwm extract` wrote as out=.")
    missing = [name for name in tasks or () if name not in found]
    if missing:
        raise PwmError(
            f"{path} has no policy for {', '.join(missing)}; it has {', '.join(sorted(found))}."
        )
    order = get_suite("mt80").names
    names = tasks or sorted(found, key=lambda n: (order.index(n) if n in order else len(order), n))
    return {name: found[name] for name in names}


def run_episodes(
    methods: Mapping[str, Method],
    tasks: Sequence[Task],
    seeds: Sequence[int],
    workers: int | None = None,
    max_envs: int = 64,
) -> dict[str, dict[str, Outcomes]]:
    """Run every method on every task's episodes.

    The episodes of a task advance together, so a policy sees them as one batch whose make-up does
    not depend on the number of workers.

    Args:
        methods: by name.
        tasks: what to run.
        seeds: environment seeds of a task's episodes, the same for all tasks and methods.
        workers: environment processes.
        max_envs: environments alive at once.

    Returns:
        method name -> task name -> outcomes.
    """
    from envs import make_vector_env

    per_wave = max(1, max_envs // len(seeds))
    results: dict[str, dict[str, Outcomes]] = {name: {} for name in methods}
    steps = len(methods) * len(seeds) * sum(task.episode_length for task in tasks)
    with progress_bar() as progress:
        bar = progress.add_task("evaluate", total=steps, note="")
        for first in range(0, len(tasks), per_wave):
            wave = tasks[first : first + per_wave]
            env = make_vector_env(wave, len(seeds), workers)
            try:
                for name, method in methods.items():
                    progress.update(bar, note=name)
                    results[name] |= _run_wave(env, wave, method, list(seeds), progress, bar)
            finally:
                env.close()
    return results


def _run_wave(
    env: Any,
    tasks: Sequence[Task],
    method: Method,
    seeds: list[int],
    progress: Progress,
    bar: TaskID,
) -> dict[str, Outcomes]:
    n = len(seeds)
    slots = {task.name: slice(i * n, (i + 1) * n) for i, task in enumerate(tasks)}
    obs, info = env.reset(seed=seeds * len(tasks))
    method.begin(tasks, seeds)
    returns = np.zeros(env.num_envs)
    any_success = np.zeros(env.num_envs, bool)
    actions = np.zeros((env.num_envs, env.single_action_space.shape[0]), np.float32)
    done = np.zeros(env.num_envs, bool)
    steps_shown = 0
    while not done.all():
        running = [task for task in tasks if not done[slots[task.name]].all()]
        chosen = method.act({t.name: obs[slots[t.name], : t.obs_dim] for t in running})
        for task in running:
            actions[slots[task.name], : task.action_dim] = chosen[task.name]
        obs, reward, terminated, truncated, info = env.step(actions)
        done = terminated | truncated
        returns += reward
        any_success |= info["success"] > 0
        progress.advance(bar, n * len(running))
        steps_shown += n * len(running)
    progress.advance(bar, n * sum(task.episode_length for task in tasks) - steps_shown)
    last = info["success"] > 0
    return {
        name: Outcomes(returns[s], last[s].astype(float), any_success[s].astype(float))
        for name, s in slots.items()
    }


def evaluate(config: EvaluateConfig) -> Results:
    """Score policies and baselines in the simulators, write and print the results.

    Raises:
        PwmError: for settings that do not fit, missing policies, or a simulator that fails.
    """
    config.validate()
    model = None
    if config.planners:
        assert config.checkpoint is not None
        model = load_world_model(config.checkpoint, resolve_device(config.device))
    wanted = list(get_suite(config.tasks).names) if config.tasks is not None else None
    policies = {}
    if config.policy_directory is not None:
        policies = find_policies(Path(config.policy_directory), wanted)
    suite = _suite(wanted, policies, model)
    store = EpisodeStore.open(config.data) if config.data is not None else None
    seeds = [config.seed + i for i in range(config.episodes)]
    out = Path(config.out)
    with open_run(out, "evaluate", config, config.resume, asdict(config)):
        data_scores = _data_scores(config, suite, store) if store is not None else {}
        methods = {
            name: Timed(method)
            for name, method in _methods(config, suite, policies, model, store, seeds).items()
        }
        outcomes = run_episodes(methods, suite.tasks, seeds, config.workers, config.max_envs)
        scores = {
            method: {task.name: by_task[task.name].score(task) for task in suite}
            for method, by_task in outcomes.items()
        }
        results = Results.build(
            suite,
            scores.pop(config.method),
            scores | data_scores,
            method=config.method,
            episodes=config.episodes,
            seeds=seeds,
            settings=_settings(config, suite, policies, model, store),
        )
        times = {name: method.milliseconds for name, method in methods.items()}
        results.save(out / "results.json")
        write_csv(results, out / "results.csv")
        write_atomically(out / DECISION_TIMES, json.dumps(times, indent=1).encode())
        if config.video:
            acting = methods[config.method].method
            write_videos(acting, suite.tasks, seeds[: config.video], out / "videos")
    print_results(results, decision_ms=times)
    return results


def _suite(
    wanted: Sequence[str] | None, policies: Mapping[str, Policy], model: WorldModel | None
) -> Suite:
    """The tasks to evaluate, as a suite with a known one's name if it has the same tasks."""
    known = {name: policy.task for name, policy in policies.items()}
    if not known:
        assert model is not None
        known = {name: model.suite[name] for name in wanted or model.suite.names}
    for suite in SUITES.values():
        if set(suite.names) == set(known):
            return Suite(suite.name, tuple(known.values()))
    return Suite(",".join(known), tuple(known.values()))


def _methods(
    config: EvaluateConfig,
    suite: Suite,
    policies: Mapping[str, Policy],
    model: WorldModel | None,
    store: EpisodeStore | None,
    seeds: Sequence[int],
) -> dict[str, Method]:
    methods: dict[str, Method] = {}
    if config.method == EXTRACTED:
        methods[EXTRACTED] = Separate({name: policy.act for name, policy in policies.items()})
    if "random" in config.baselines:
        methods["random"] = Separate({task.name: random_controller(task, seeds) for task in suite})
    for name, best in (("bc", 1.0), ("bc_best", config.best)):
        if name in config.baselines and store is not None:
            cloned = clone(store, suite.tasks, best, config.cloning, config.seed)
            methods[name] = Separate({task: policy.act for task, policy in cloned.items()})
    for name in config.planners:
        assert model is not None
        for task in suite:
            model.suite.id(task.name)  # raises for a task that the world model does not have
        directory = Path(config.policy_directory or "")
        guide: Guide = (
            PriorAndQ(model) if name == PLANNER else extracted_guide(model, policies, directory)
        )
        planner = Planner(model, guide, config.planner)
        methods[name] = PlannedEpisodes(planner, model.suite, model.bins.device)
    return methods


def extracted_guide(
    model: WorldModel, policies: Mapping[str, Policy], directory: Path
) -> ActorAndCritic:
    """What planner+actor plans with.

    Args:
        model: the world model that the policies were extracted from.
        policies: what :func:`find_policies` found there.
        directory: where they are, and their critics beside them.

    Raises:
        PwmError: for a policy without a critic, or of another world model.
    """
    single = is_checkpoint(directory)
    critics = {name: load_critic(directory if single else directory / name) for name in policies}
    return ActorAndCritic(model, policies, critics)


def _settings(
    config: EvaluateConfig,
    suite: Suite,
    policies: Mapping[str, Policy],
    model: WorldModel | None,
    store: EpisodeStore | None,
) -> dict[str, Any]:
    """What results.json says of how it was made."""
    sizes = {
        _millions(ModelSize(**a["model"]), a["obs_dim"], a["action_dim"])
        for policy in policies.values()
        if (a := policy.architecture)["model"] is not None
    }
    if model is not None:
        sizes.add(_millions(model.size, model.suite.obs_dim, model.suite.action_dim))
    settings: dict[str, Any] = {
        "policy": config.policy,
        "data": config.data,
        "world_model": ", ".join(sorted(sizes)) or None,
        "data_rows": {task.name: store.record(task.name).rows for task in suite} if store else None,
    }
    if config.planners:
        settings["checkpoint"] = config.checkpoint
        settings["policies"] = config.policy_directory
        settings["planner"] = asdict(config.planner)
    return settings


def _millions(size: ModelSize, obs_dim: int, action_dim: int) -> str:
    """A published size's name such as ``48M``, or millions of parameters without any Q ensemble."""
    name = size_name(size, has_q=False)
    if name != "custom":
        return name
    encoder = [obs_dim + size.task_dim, *[size.encoder_dim] * size.encoder_layers, size.latent_dim]
    joint = [size.latent_dim + size.task_dim + action_dim, size.mlp_dim, size.mlp_dim]
    nets = (encoder, [*joint, size.latent_dim], [*joint, size.num_bins])
    count = sum((i + 3) * o for net in nets for i, o in itertools.pairwise(net))
    return f"{count / 1e6:.1f}M"


def _data_scores(
    config: EvaluateConfig, suite: Suite, store: EpisodeStore
) -> dict[str, dict[str, TaskScore]]:
    scores: dict[str, dict[str, TaskScore]] = {"data_mean": {}, "data_best": {}}
    if not set(scores) & set(config.baselines):
        return {}
    for task in suite:
        if fault := unscorable(store, task):
            raise PwmError(
                f"{config.data} has {fault} of {task.name}, which cannot be scored; leave "
                "data_mean and data_best out of baselines."
            )
        table = store.episodes(task.name)
        mean, best = score_data(task, table["return"], table["success_last"], table["success_any"])
        scores["data_mean"][task.name], scores["data_best"][task.name] = mean, best
    return {name: by_task for name, by_task in scores.items() if name in config.baselines}


def write_videos(
    method: Method, tasks: Sequence[Task], seeds: Sequence[int], directory: Path
) -> None:
    """One MP4 an episode, ``<task>_<i>.mp4``, at the environment's frame size.

    Raises:
        PwmError: if imageio is missing or no OpenGL backend works.
    """
    try:
        import imageio.v3 as iio
        import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise PwmError(
            "writing videos needs imageio and imageio-ffmpeg; pip install 'pwm[video]'."
        ) from error
    directory.mkdir(parents=True, exist_ok=True)
    with progress_bar() as progress:
        bar = progress.add_task("videos", total=len(tasks) * len(seeds), note="")
        for task, (i, seed) in itertools.product(tasks, enumerate(seeds)):
            progress.update(bar, note=task.name)
            frames = _film(method, task, seed)
            iio.imwrite(directory / f"{task.name}_{i}.mp4", frames, fps=25, codec="libx264")
            progress.advance(bar)


def _film(method: Method, task: Task, seed: int) -> np.ndarray:
    from envs import make_env

    env = make_env(task, render_mode="rgb_array")
    try:
        obs, _ = env.reset(seed=seed)
        method.begin([task], [seed])
        frames: list[Any] = [env.render()]
        done = False
        while not done:
            action = method.act({task.name: obs[None]})[task.name][0]
            obs, _, terminated, truncated, _ = env.step(action)
            frames.append(env.render())
            done = terminated or truncated
    finally:
        env.close()
    return np.stack(frames)
