"""Policy extraction: a policy per task by first-order gradients through a frozen world model."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from torch import Tensor

from pwm.core.action_bounds import as_known_by
from pwm.core.described_tasks import tasks_of, tell_differences
from pwm.core.errors import PwmError
from pwm.core.files import make_directory
from pwm.core.fingerprints import MadeOf, definitions
from pwm.core.progress import console, forget_rate, progress_bar
from pwm.core.signals import StopSignals
from pwm.core.suites import Suite, Task
from pwm.data.inspection import open_checked
from pwm.data.problems import BadData, Problem
from pwm.data.shared_tasks import shared_tasks
from pwm.data.store import EpisodeStore
from pwm.data.windows.index import WindowIndex
from pwm.extraction.chosen_policies import Judge, metrics_of
from pwm.extraction.config import ExtractConfig
from pwm.extraction.estimate import estimates_table
from pwm.extraction.groups import (
    group_directory,
    kept_tasks,
    largest_group,
    planned_groups,
)
from pwm.extraction.task_group import EXPECTED, KIND, Group
from pwm.extraction.warm_start import Networks, earlier_networks
from pwm.models.further_heads import further_models
from pwm.models.stacked_world_model import StackedWorldModel
from pwm.models.world_model import WorldModel, load_world_model
from pwm.models.world_models import load_world_models
from pwm.pretraining.data_warnings import Traits, data_warnings
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.checkpoint import is_checkpoint
from pwm.runtime.device import use_device
from pwm.runtime.first_step import FirstStep
from pwm.runtime.inputs import inputs_made_of
from pwm.runtime.metrics import MetricsLogger
from pwm.runtime.processor import say_if_busy
from pwm.runtime.run_dir import open_run, resolved_config
from pwm.runtime.spaced_saves import SpacedSaves
from pwm.runtime.training_checkpoints import delete_steps, load_latest, save_step


def extract(config: ExtractConfig, judge: Judge | None = None) -> Path:
    """Learn a policy for each task, skipping the tasks that already have one in ``out``.

    Args:
        config: the settings.
        judge: scores policies for ``select=simulator``; :mod:`pwm.evaluation.played_choice` has
            one, since nothing here needs a simulator.

    Returns:
        The directory that holds ``<task>/``, each of which :func:`pwm.load_policy` opens.

    Raises:
        PwmError: for settings, a world model or data that do not fit.
        Interrupted: after saving, when SIGINT or SIGTERM asked for it.
    """
    config.validate()
    if config.select == "simulator" and judge is None:
        raise PwmError(
            "select=simulator plays policies, which this function cannot; call "
            "pwm.evaluation.played_choice.extract, or pwm.extract, in its place."
        )
    device = use_device(config.device)
    say_if_busy(device)
    models = load_world_models(config.checkpoint, device)
    bad = BadData(config.on_error)
    store = open_checked(config.data, bad)
    tasks = _with_data(config, store, models.suite, _tasks(config, models.suite), bad)
    stack = None if config.finetune.enabled or config.ensemble else models.stack
    if judge is not None:
        judge.require(tasks)
    parts = (
        [_Part(*part, config, store, bad, judge) for part in models.split(tasks)]
        if stack is None
        else [_Part(stack.shared, tasks, config, store, bad, judge, stack)]
    )
    out = Path(config.out)
    made_of = _made_of(config, tasks)
    kept = kept_tasks(out, tasks)
    with open_run(out, "extract", config, made_of, _made_of(config, kept) if kept else ()):
        if done := sum(is_checkpoint(out / task.name) for task in tasks):
            console.print(
                f"{out} has {done} of {len(tasks)} policies already; they are kept.", soft_wrap=True
            )
        for part in parts:
            part.extract(out)
    bad.report(console.print)
    return out


class _Part:
    """The tasks of one world model, or of several that are called side by side.

    Args:
        model: the world model.
        tasks: of it.
        config: of the extraction.
        store: the data.
        bad: told of bad data.
        judge: see :func:`extract`.
        stack: the world models, if they are several; ``model`` is then what they share.
    """

    def __init__(
        self,
        model: WorldModel,
        tasks: Sequence[Task],
        config: ExtractConfig,
        store: EpisodeStore,
        bad: BadData,
        judge: Judge | None,
        stack: StackedWorldModel | None = None,
    ) -> None:
        self._tasks, self._config = tasks, config
        names = [task.name for task in tasks]
        ensemble = _ensemble(config, model, names)
        traits = Traits(model.size, has_q=False, episodic=model.episodic)
        for line in data_warnings(store, model.suite, names, bad, traits, refuses=False):
            console.print(line)
        earlier: dict[str, Networks] = {}
        if config.init is not None:
            earlier = earlier_networks(Path(config.init), tasks, model, config.learner)

        def make(members: Sequence[Task]) -> Group:
            given = store, members, config, bad, earlier
            if stack is None:
                return Group(model, *given, ensemble, judge=judge)
            return Group(stack.together(members), *given, [], stack.alone, judge)

        self._make, self._size = make, partial(_group_size, config, model, ensemble)

    def extract(self, out: Path) -> None:
        """Learn the policies that are not there yet."""
        for members in planned_groups(out, self._tasks, self._size):
            if all(is_checkpoint(out / task.name) for task in members):
                names = [task.name for task in members]
                delete_steps(group_directory(out, names) / "checkpoints")  # if a kill left some
            else:
                _extract_and_free(partial(self._make, members), out)


def _ensemble(config: ExtractConfig, model: WorldModel, tasks: Sequence[str]) -> list[WorldModel]:
    """The further world models, which must know the same tasks in the same sizes.

    Those that are heads on the model's own encoder come first. They are left out where it is
    fine-tuned, since its latents become others than theirs.
    """
    ensemble = [load_world_model(path, model.bins.device, tasks) for path in config.ensemble]
    heads = [] if config.finetune.enabled else further_models(config.checkpoint, model)
    above = config.learner.ensemble.truncate_above
    if above is not None and not ensemble and not heads:
        raise PwmError(
            f"learner.ensemble.truncate_above={above:g} ends rollouts where world models disagree, "
            f"and there is only {config.checkpoint}; give further ones as ensemble=, or pretrain "
            "with heads.members=3."
        )
    for path, other in zip(config.ensemble, ensemble, strict=True):
        if other.suite != model.suite:
            raise PwmError(
                f"ensemble={path} is a world model of other tasks than {config.checkpoint}; give "
                "models that were pretrained on the same suite."
            )
        if other.episodic != model.episodic:
            raise PwmError(
                f"of {config.checkpoint} and ensemble={path} one alone predicts terminations; "
                "pretrain both with the same episodic=."
            )
    return [*heads, *ensemble]


def _group_size(
    config: ExtractConfig, model: WorldModel, ensemble: Sequence[WorldModel], tasks: int
) -> int:
    if config.finetune.enabled:
        return 1
    if config.group_size is not None:
        return config.group_size
    accelerator = None
    if model.bins.device.type == "cuda":
        accelerator = Acceleration(config.compile, config.precision).prepare(model.bins.device)
    return largest_group(model, config.learner, tasks, ensemble, accelerator)


def _tasks(config: ExtractConfig, suite: Suite) -> list[Task]:
    if config.tasks is None:
        return list(suite)
    return tasks_of(config.tasks, suite, config.checkpoint)


def _made_of(config: ExtractConfig, tasks: Sequence[Task]) -> MadeOf:
    names = [task.name for task in tasks]
    return inputs_made_of(config, names) | definitions(tasks)


def _with_data(
    config: ExtractConfig,
    store: EpisodeStore,
    suite: Suite,
    tasks: Sequence[Task],
    bad: BadData,
) -> list[Task]:
    """The tasks that have data; that some have none is an error unless bad data are left out."""
    empty = [t.name for t in tasks if t.name not in store.suite or not store.count(t.name)]
    if empty and (not bad.skips or len(empty) == len(tasks)):
        raise PwmError(
            f"{store.path} has no episodes of {', '.join(empty)}; collect or convert some, or "
            "leave these tasks out of tasks=."
        )
    for name in empty:
        bad.note(Problem(str(store.path), name, None, "it has no episodes"))
    kept = [task for task in tasks if task.name not in empty]
    shared_tasks(store, suite, [task.name for task in kept])  # raises where sizes differ
    kept = [as_known_by(task, store.suite[task.name]) for task in kept]
    tell_differences(kept, config.checkpoint, store.suite, store.path)
    if config.finetune.enabled:  # raises for a task without a window
        WindowIndex.of(store, kept, config.learner.horizon, "train", {}, bad)
    return kept


def _extract_and_free(make: Callable[[], Group], out: Path) -> None:
    """Leave nothing of a group: its learner is in reference cycles, and a GPU's memory with it."""
    _extract_group(make(), out)
    gc.collect()


def _extract_group(group: Group, out: Path) -> None:
    config, total = group.config, group.config.learner.steps
    directory = group_directory(out, [task.name for task in group.tasks])
    checkpoints = directory / "checkpoints"
    checkpoint = load_latest(checkpoints, KIND, console.print)
    step = 0
    if checkpoint is not None:
        group.load(checkpoint)
        step = int(checkpoint.meta["step"])
    make_directory(directory)
    logger = MetricsLogger(directory, step, config.wandb_project, resolved_config(config))
    label = group.tasks[0].name if len(group.tasks) == 1 else f"{len(group.tasks)} tasks"
    saves = SpacedSaves()
    with closing(logger), StopSignals() as signals, progress_bar() as progress:
        bar = progress.add_task(f"extract {label}", total=total, completed=step, note="")
        steps = _Steps(group, partial(forget_rate, progress, bar))
        if not step and (found := group.consider(step)):
            logger.log(step, _by_task(group.tasks, found))
        while step < total:
            metrics = steps(step)
            step += 1
            if estimated := group.consider(step):
                logger.log(step, _by_task(group.tasks, estimated))
            if step % config.log_every == 0 or step == total:
                logger.log(step, _by_task(group.tasks, metrics))
                progress.update(bar, note=_note(metrics))
            progress.update(bar, completed=step)
            periodic = step % config.save_every == 0 and saves.due
            if signals.requested or periodic or step == total:
                logger.flush()
                with saves.saving():
                    save_step(
                        checkpoints, KIND, step, group.tensors(), group.meta(), config.keep_last
                    )
                signals.raise_if_requested(
                    f"extraction of {label} saved at iteration {step} of {total} in {out}; the "
                    "same command goes on from there."
                )
        if scores := group.expected_scores():
            logger.log(step, _by_task(group.tasks, metrics_of(scores, EXPECTED)))
            named = dict(zip((task.name for task in group.tasks), scores, strict=True))
            console.print(estimates_table(named))
        if config.select == "simulator" and group.chosen is not None:
            what = f"means of {config.select_episodes} episodes in the simulator"
            console.print(group.chosen.table(group.tasks, what))
    group.save_policies(out)
    delete_steps(checkpoints)


class _Steps:
    """A group's steps; before the first that compiles, it is said that it will."""

    def __init__(self, group: Group, forget_rate: Callable[[], object]) -> None:
        self._group, self._forget_rate = group, forget_rate
        self._first: FirstStep | None = None

    def __call__(self, step: int) -> dict[str, Tensor]:
        if step < self._group.config.learner.warmup_steps:
            return self._group.step(step)  # it clones or values, which needs no other kernels
        if self._first is None:
            accelerator = self._group.learner.accelerator
            self._first = FirstStep(accelerator, "the iteration", self._forget_rate)
        metrics = self._group.step(step)
        self._first.report(metrics["actor_grad_norm"])
        return metrics


def _note(metrics: Mapping[str, Tensor]) -> str:
    shown = next(n for n in ("imagined_return", "bc_loss", "q_loss") if n in metrics)
    return f"{shown.replace('_', ' ')} {float(metrics[shown].mean()):z.2f}"


def _by_task(tasks: Sequence[Task], metrics: dict[str, Tensor]) -> dict[str, float]:
    return {
        f"{task.name}/{name}": value
        for name, values in metrics.items()
        for task, value in zip(tasks, values.tolist(), strict=True)
    }
