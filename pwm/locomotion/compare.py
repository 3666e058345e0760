"""``pwm compare``: several learners on the same simulators, by steps and by time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.progress import console
from pwm.core.settings import Choices, setting
from pwm.core.validation import require_at_least, require_resume, require_seed, require_valid
from pwm.evaluation.videos import require_writer
from pwm.locomotion.catalog import make_simulation
from pwm.locomotion.comparison import Comparison, printed, summary, write_comparison
from pwm.locomotion.film import FILMED, VIDEO, film, require_drawable
from pwm.locomotion.methods import METHODS, MethodSettings, make_learner, require_methods
from pwm.locomotion.training import Curve, Run, RunSettings
from pwm.runtime.device import resolve_device, use_device
from pwm.runtime.processor import say_if_busy
from pwm.runtime.run_dir import open_run, require_output


@dataclass
class CompareConfig:
    """Settings of ``pwm compare``.

    Attributes:
        tasks: names of locomotion environments, such as ``ant,hopper``.
        methods: some of ``pwm``, ``shac``, ``ppo`` and ``sac``. One that a task does not allow, as
            shac where the simulator has no gradients, is left out there, and it is said.
        steps: control steps of a run, all its environments together.
        seeds: runs of every task and method, with seeds 0, 1, ...
        out: gets a directory per run, ``comparison.json``, ``comparison.md`` and
            ``comparison.html``.
        evaluations: of a run, evenly spaced in steps.
        episodes: of an evaluation, the same ones for all.
        learners: settings of the methods.
        save_every: iterations between checkpoints, from which runs of pwm and shac go on.
        videos: write an episode of the learned policy into each run of pwm and shac, as
            ``video.mp4`` and a strip of its frames, ``video.png``; also of runs that are finished.
    """

    presets: ClassVar[Choices] = {"compare": "paper"}

    tasks: list[str] = setting(MISSING, may_change=True)
    out: str = MISSING
    methods: list[str] = setting(default_factory=lambda: list(METHODS), may_change=True)
    steps: int = 1_000_000
    seeds: int = setting(3, may_change=True)
    device: str = setting("auto", may_change=True)
    resume: str = "auto"
    evaluations: int = 20
    episodes: int = 16
    learners: MethodSettings = field(default_factory=MethodSettings)
    save_every: int = setting(50, may_change=True)
    videos: bool = setting(False, may_change=True)

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        if not self.tasks:
            raise PwmError("no task was named; tasks= takes locomotion environments such as ant.")
        if len(set(self.tasks)) < len(self.tasks):
            raise PwmError("a task is named twice in tasks=; name each once.")
        require_methods(self.methods)
        require_at_least(self, 1, "steps", "seeds", "evaluations", "episodes", "save_every")
        require_seed(self, "seeds")
        require_valid("learners", self.learners)
        if self.videos:
            require_writer()
            if not set(FILMED) & set(self.methods):
                raise PwmError(
                    "videos=true needs a run of pwm or shac, since ppo and sac have no policy that "
                    "pwm opens; add one of them to methods=."
                )
        require_resume(self)
        resolve_device(self.device)
        require_output(self)


def compare(config: CompareConfig) -> Path:
    """Run all methods on all tasks with all seeds, and write tables, curves and a page.

    Runs that are finished are kept, so more seeds, methods and tasks can be added to an ``out``.

    Returns:
        The page's path.

    Raises:
        PwmError: for settings that do not fit.
        Interrupted: after saving, when a signal asked for it.
    """
    config.validate()
    device = str(use_device(config.device))
    say_if_busy(use_device(config.device))
    out = Path(config.out)
    chosen, left_out = _chosen(config, device)
    unfilmed = [method for method in config.methods if method not in FILMED]
    if config.videos and unfilmed:
        console.print(f"No videos of {' and '.join(unfilmed)}: their runs save no policy of pwm's.")
    with open_run(out, "compare", config):
        curves: dict[str, dict[str, list[Curve]]] = {}
        for task, methods in chosen.items():
            curves[task] = {method: [] for method in methods}
            for seed in range(config.seeds):  # so that a run that is stopped has all methods
                for method in methods:
                    curves[task][method].append(_run(config, task, method, seed, device))
        comparison = Comparison(curves, left_out, config.steps)
        found = summary(comparison)
        page = write_comparison(comparison, found, out)
        if config.videos:
            _film_all(config, chosen, device)
    for table in printed(found):
        console.print(table)
    console.print(f"Comparison: {page}", soft_wrap=True)
    return page


def _film_all(config: CompareConfig, chosen: dict[str, list[str]], device: str) -> None:
    """Videos of all runs that have a policy and no video yet."""
    for task, methods in chosen.items():
        for method in [m for m in methods if m in FILMED]:
            for seed in range(config.seeds):
                run = _directory(config, task, method, seed)
                if not (run / VIDEO).is_file():
                    console.print(f"Filmed {film(run, device)}.")


def _directory(config: CompareConfig, task: str, method: str, seed: int) -> Path:
    return Path(config.out) / task / method / f"seed{seed}"


def _chosen(
    config: CompareConfig, device: str
) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    """The methods of each task, and why others are left out."""
    chosen: dict[str, list[str]] = {}
    left_out: dict[str, dict[str, str]] = {}
    for task in config.tasks:
        simulation = make_simulation(task, num_envs=1, device=device)
        if config.videos:
            require_drawable(simulation)
        differentiable = simulation.differentiable
        simulation.close()
        chosen[task] = [m for m in config.methods if m != "shac" or differentiable]
        if len(chosen[task]) < len(config.methods):
            reason = f"{task} cannot be differentiated"
            left_out[task] = {"shac": reason}
            console.print(f"shac is left out: {reason}.")
        if not chosen[task]:
            raise PwmError(f"no method of methods= can learn {task}; add pwm, ppo or sac.")
    return chosen, left_out


def _run(config: CompareConfig, task: str, method: str, seed: int, device: str) -> Curve:
    directory = _directory(config, task, method, seed)
    if (curve := Curve.load(directory)).finished:
        return curve
    num_envs = config.learners.of(method).num_envs
    simulation = make_simulation(task, num_envs=num_envs, seed=seed, device=device)
    evaluation = make_simulation(task, num_envs=config.episodes, device=device)
    make = partial(make_learner, method, simulation, config.learners, config.steps, seed)
    every = -(-config.steps // config.evaluations)
    settings = RunSettings(config.steps, every, config.save_every)
    try:
        return Run(make, evaluation, settings, directory, f"{task} {method} seed {seed}").finish()
    finally:
        simulation.close()
        evaluation.close()
