"""Evaluation: policies and baselines on the same episodes, in parallel environments."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING
from rich.progress import Progress, TaskID

from pwm.actor_critic import Policy, load_policy
from pwm.checkpoint import is_checkpoint
from pwm.cloning import CloningConfig, clone
from pwm.dataset import EpisodeStore
from pwm.errors import PwmError
from pwm.progress import progress_bar
from pwm.rundir import open_run
from pwm.scores import Results, TaskScore, print_results, score_data, score_task, write_csv
from pwm.suites import Suite, Task, get_suite

BASELINES = ("random", "bc", "bc_best", "data_mean", "data_best")


@dataclass
class EvaluateConfig:
    """Settings of ``pwm evaluate``.

    Attributes:
        policy: a directory of policies, one a task, or one policy's directory.
        out: gets results.json, results.csv and videos.
        tasks: a list, a suite's name, or null for every policy found.
        episodes: a task.
        seed: of the first episode's environment; episode i has seed + i.
        baselines: any of random, bc, bc_best, data_mean, data_best; all but the first need data.
        best: the share of episodes that bc_best clones.
        data: the episode store that the baselines are made from.
        video: episodes a task to write as MP4.
        workers: environment processes; null for one a core.
        max_envs: environments that are alive at once.
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
        if self.data is None and set(self.baselines) - {"random"}:
            raise PwmError(
                f"baselines={self.baselines} are made from data; give data=DIR or baselines=[random]."
            )
        if self.episodes < 1 or self.max_envs < 1 or self.video < 0:
            raise PwmError("episodes and max_envs must be at least 1 and video at least 0.")


Controller = Callable[[np.ndarray], np.ndarray]
"""Observations (n, obs_dim) of one task's n running episodes to actions (n, action_dim)."""


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
    methods: Mapping[str, Mapping[str, Controller]],
    tasks: Sequence[Task],
    seeds: Sequence[int],
    workers: int | None = None,
    max_envs: int = 64,
) -> dict[str, dict[str, Outcomes]]:
    """Run every method on every task's episodes.

    The episodes of a task advance together, so a policy sees them as one batch whose make-up does
    not depend on the number of workers.

    Args:
        methods: method name -> task name -> controller.
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
            env = make_vector_env([task.name for task in wave], len(seeds), workers)
            try:
                for name, controllers in methods.items():
                    progress.update(bar, note=name)
                    chosen = [controllers[task.name] for task in wave]
                    outcomes = _run_wave(env, wave, chosen, list(seeds), progress, bar)
                    results[name] |= outcomes
            finally:
                env.close()
    return results


def _run_wave(
    env: Any,
    tasks: Sequence[Task],
    controllers: Sequence[Controller],
    seeds: list[int],
    progress: Progress,
    bar: TaskID,
) -> dict[str, Outcomes]:
    n = len(seeds)
    slots = [slice(i * n, (i + 1) * n) for i in range(len(tasks))]
    obs, info = env.reset(seed=seeds * len(tasks))
    returns = np.zeros(env.num_envs)
    any_success = np.zeros(env.num_envs, bool)
    actions = np.zeros((env.num_envs, env.single_action_space.shape[0]), np.float32)
    for step in range(max(task.episode_length for task in tasks)):
        running = [i for i, task in enumerate(tasks) if step < task.episode_length]
        for i in running:
            own = obs[slots[i], : tasks[i].obs_dim]
            actions[slots[i], : tasks[i].action_dim] = controllers[i](own)
        obs, reward, _, _, info = env.step(actions)
        returns += reward
        any_success |= info["success"] > 0
        progress.advance(bar, n * len(running))
    last = info["success"] > 0
    return {
        task.name: Outcomes(returns[s], last[s].astype(float), any_success[s].astype(float))
        for task, s in zip(tasks, slots, strict=True)
    }


def random_controller(task: Task, seeds: Sequence[int]) -> Controller:
    """Uniform actions, each episode from its own stream."""
    streams = itertools.cycle([np.random.default_rng([seed, 1]) for seed in seeds])

    def act(obs: np.ndarray) -> np.ndarray:
        draws = [next(streams).uniform(-1, 1, task.action_dim) for _ in obs]
        return np.asarray(draws, np.float32)

    return act


def evaluate(config: EvaluateConfig) -> Results:
    """Score policies and baselines in the simulators, write and print the results.

    Raises:
        PwmError: for settings that do not fit, missing policies, or a simulator that fails.
    """
    config.validate()
    wanted = list(get_suite(config.tasks).names) if config.tasks is not None else None
    policies = find_policies(Path(config.policy), wanted)
    suite = Suite(_suite_name(policies), tuple(policy.task for policy in policies.values()))
    store = EpisodeStore.open(config.data) if config.data is not None else None
    seeds = [config.seed + i for i in range(config.episodes)]
    out = Path(config.out)
    with open_run(out, "evaluate", config, config.resume, asdict(config)):
        methods = _methods(config, suite, policies, store, seeds)
        outcomes = run_episodes(methods, suite.tasks, seeds, config.workers, config.max_envs)
        scores = {
            method: {task.name: by_task[task.name].score(task) for task in suite}
            for method, by_task in outcomes.items()
        }
        if store is not None:
            scores |= _data_scores(config, suite, store)
        extracted = scores.pop("extracted")
        results = Results.build(
            suite, extracted, scores, episodes=config.episodes, seeds=seeds,
            settings={"policy": config.policy, "data": config.data},
        )
        results.save(out / "results.json")
        write_csv(results, out / "results.csv")
        if config.video:
            write_videos(policies, seeds[: config.video], out / "videos")
    print_results(results)
    return results


def _suite_name(policies: Mapping[str, Policy]) -> str:
    from pwm.suites import SUITES

    names = tuple(policies)
    for suite in SUITES.values():
        if set(suite.names) == set(names):
            return suite.name
    return ",".join(names)


def _methods(
    config: EvaluateConfig,
    suite: Suite,
    policies: Mapping[str, Policy],
    store: EpisodeStore | None,
    seeds: Sequence[int],
) -> dict[str, dict[str, Controller]]:
    methods: dict[str, dict[str, Controller]] = {
        "extracted": {name: policy.act for name, policy in policies.items()}
    }
    if "random" in config.baselines:
        methods["random"] = {task.name: random_controller(task, seeds) for task in suite}
    for name, best in (("bc", 1.0), ("bc_best", config.best)):
        if name in config.baselines and store is not None:
            cloned = clone(store, suite.tasks, best, config.cloning, config.seed)
            methods[name] = {task: policy.act for task, policy in cloned.items()}
    return methods


def _data_scores(
    config: EvaluateConfig, suite: Suite, store: EpisodeStore
) -> dict[str, dict[str, TaskScore]]:
    scores: dict[str, dict[str, TaskScore]] = {"data_mean": {}, "data_best": {}}
    for task in suite:
        table = store.episodes(task.name)
        mean, best = score_data(
            task, table["return"], table["success_last"], table["success_any"]
        )
        scores["data_mean"][task.name], scores["data_best"][task.name] = mean, best
    return {name: by_task for name, by_task in scores.items() if name in config.baselines}


def write_videos(policies: Mapping[str, Policy], seeds: Sequence[int], directory: Path) -> None:
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
        bar = progress.add_task("videos", total=len(policies) * len(seeds), note="")
        for (name, policy), (i, seed) in itertools.product(policies.items(), enumerate(seeds)):
            progress.update(bar, note=name)
            frames = _film(policy, seed)
            iio.imwrite(directory / f"{name}_{i}.mp4", frames, fps=25, codec="libx264")
            progress.advance(bar)


def _film(policy: Policy, seed: int) -> np.ndarray:
    from envs import make_env

    env = make_env(policy.task.name, render_mode="rgb_array")
    try:
        obs, _ = env.reset(seed=seed)
        frames = [env.render()]
        done = False
        while not done:
            obs, _, terminated, truncated, _ = env.step(policy.act(obs))
            frames.append(env.render())
            done = terminated or truncated
    finally:
        env.close()
    return np.stack(frames)
