"""Policy extraction: a policy per task by first-order gradients through a frozen world model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import MISSING
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.core.files import make_directory
from pwm.core.progress import console, progress_bar
from pwm.core.signals import StopSignals
from pwm.core.suites import Suite, Task, get_suite, short_name, suite_table
from pwm.core.validation import require_at_least, require_choice, require_resume, require_seed
from pwm.data.checked_store import open_checked
from pwm.data.problems import ON_ERROR, BadData, Problem
from pwm.data.start_states import StatePool
from pwm.data.store import EpisodeStore, shared_tasks
from pwm.data.windows.index import WindowIndex
from pwm.data.windows.sampler import WindowSampler
from pwm.extraction.advantage_weighting import cloned_rows
from pwm.extraction.group_size import largest_group
from pwm.extraction.groups import planned_groups
from pwm.extraction.learner import (
    ActorCriticConfig,
    ActorCriticLearner,
    Demonstrations,
    Transitions,
)
from pwm.extraction.warm_start import Networks, earlier_networks
from pwm.models.actor_critic import Policy
from pwm.models.world_model import WorldModel, load_world_model
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner
from pwm.runtime.acceleration import Acceleration, FirstStep
from pwm.runtime.checkpoint import (
    Checkpoint,
    delete_steps,
    is_checkpoint,
    load_latest,
    require_same_data,
    save_step,
)
from pwm.runtime.device import resolve_device
from pwm.runtime.metrics import MetricsLogger, require_wandb
from pwm.runtime.run_dir import open_run, require_output, resolved_config
from pwm.runtime.seeding import stream

_KIND = "extraction"


@dataclass
class FinetuneConfig:
    """Updating the world model on the task's own data while its policy is learned.

    Attributes:
        enabled: off by default; tasks are then extracted one by one, each with its own copy.
        batch_size: windows an update; one update an iteration.
        learner: the update's settings.
    """

    enabled: bool = False
    batch_size: int = 256
    learner: LearnerConfig = field(default_factory=lambda: LearnerConfig(lr=1e-4, lr_final=1e-5))


@dataclass
class ExtractConfig:
    """Settings of ``pwm extract``.

    Attributes:
        checkpoint: a world model: a pretraining run or one checkpoint.
        data: the episode store that start states come from.
        out: gets one policy directory a task.
        tasks: a list, a suite's name, or null for all tasks of the world model.
        init: what an earlier extraction with the same networks wrote: its actors and critics are
            begun with, in the place of random ones. Null begins anew.
        ensemble: further world models of the same suite, such as the same pretraining with other
            seeds gives, in which the same actions are imagined: a reward is the mean over all
            models, minus ``learner.disagreement_weight`` times their standard deviation.
        pool: start states a task, drawn once from its episodes.
        group_size: tasks learned at once; null for as many as the memory holds.
        on_error: what to do with bad data: ``stop``, or ``skip`` to leave them out and count them.
        compile, precision: see :class:`pwm.runtime.acceleration.Acceleration`.
    """

    checkpoint: str = MISSING
    data: str = MISSING
    out: str = MISSING
    tasks: Any = None
    init: str | None = None
    ensemble: list[str] = field(default_factory=list)
    seed: int = 0
    device: str = "auto"
    compile: str = "auto"
    precision: str = "auto"
    resume: str = "auto"
    learner: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    pool: int = 16_384
    group_size: int | None = None
    on_error: str = "stop"
    log_every: int = 20
    save_every: int = 500
    keep_last: int = 2
    wandb_project: str | None = None

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_seed(self, "seed")
        require_at_least(self, 1, "pool", "log_every", "save_every", "keep_last")
        if self.group_size is not None:
            require_at_least(self, 1, "group_size")
        Acceleration(self.compile, self.precision).validate()
        require_resume(self)
        require_choice(self, "on_error", ON_ERROR)
        require_wandb(self.wandb_project)
        resolve_device(self.device)
        if self.tasks is not None:
            get_suite(self.tasks)
        self.learner.validate()
        require_at_least(self, 1, "finetune.batch_size")
        self.finetune.learner.validate()
        require_output(self)

    def as_job(self) -> ExtractConfig:
        """These settings for one of several jobs, which has some of the tasks."""
        return self


MAY_CHANGE = (
    "tasks", "on_error", "device", "group_size", "log_every", "save_every", "keep_last",
    "wandb_project",
)  # fmt: skip


class StartStates:
    """K tasks' pools of recorded observations, as latents of a world model.

    With a frozen model each observation is encoded once; one that is being fine-tuned encodes
    what is drawn anew.
    """

    def __init__(self, model: WorldModel, obs: Tensor, task_ids: Tensor, frozen: bool) -> None:
        self.model, self.task_ids, self.frozen = model, task_ids.unsqueeze(1), frozen
        self.content = self._encode(obs) if frozen else obs

    @torch.no_grad()
    def _encode(self, obs: Tensor) -> Tensor:
        parts = [self.model.encode(part, self.task_ids) for part in obs.split(2048, dim=1)]
        return torch.cat(parts, 1)

    def __len__(self) -> int:
        return self.content.shape[1]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Latents (K, B, latent) of row numbers (K, B)."""
        drawn = _take(self.content, rows)
        return drawn if self.frozen else self._encode(drawn)


def _take(pool: Tensor, rows: Tensor) -> Tensor:
    return pool.gather(1, rows.unsqueeze(-1).expand(-1, -1, pool.shape[-1]))


class Group:
    """Everything that the extraction of K tasks changes, and the data it draws from.

    Args:
        model: the world model.
        store: the data.
        tasks: the K tasks.
        config: see :class:`ExtractConfig`.
        bad: told of bad data.
        begin_with: networks to begin with by task name; the other tasks get random ones.
        others: the ensemble's further world models.
    """

    def __init__(
        self,
        model: WorldModel,
        store: EpisodeStore,
        tasks: Sequence[Task],
        config: ExtractConfig,
        bad: BadData,
        begin_with: Mapping[str, Networks],
        others: Sequence[WorldModel],
    ) -> None:
        self.tasks, self.config, self.store = list(tasks), config, store
        self.tuner: WorldModelLearner | None = None
        if config.finetune.enabled:
            torch.manual_seed(config.seed)  # of the value losses' noise and dropout
            model = copy.deepcopy(model).unfreeze()
            self.tuner, self.windows = _tuner(model, store, tasks, config, bad)
        accelerator = Acceleration(config.compile, config.precision).prepare(model.bins.device)
        self.learner = ActorCriticLearner(
            model, tasks, config.learner, config.seed, accelerator, others
        )
        for index, task in enumerate(tasks):
            if task.name in begin_with:
                self.learner.begin_from(index, *begin_with[task.name])
        frozen, ids = self.tuner is None, self.learner.task_ids
        pool = partial(_pools, store, tasks, model, config, bad)
        obs = pool().obs
        self.starts = StartStates(model, obs, ids, frozen)
        self.elsewhere = [StartStates(other, obs, ids, True) for other in others]
        self.demonstrations: tuple[StartStates, Tensor] | None = None
        if config.learner.clones:
            shown = pool(best=config.learner.clone_best)
            if config.learner.clone_temperature is not None:
                shown = _weighted(shown, model, ids, config)
            states = StartStates(model, shown.obs, ids, frozen)
            self.demonstrations = states, shown.action
        self.real: tuple[StartStates, StartStates, Tensor] | None = None
        if config.learner.real_value_share:
            rows = pool(ahead=config.learner.real_value_steps)
            states = StartStates(model, rows.obs, ids, frozen)
            next_states = StartStates(model, rows.next_obs, ids, frozen)
            facts = torch.stack([rows.reward, rows.next_discount], -1)
            self.real = states, next_states, facts

    def step(self, number: int) -> dict[str, Tensor]:
        """An update that only clones, or an iteration, for all tasks of the group; (K,) metrics."""
        self.learner.set_progress(number)
        first = self.config.learner.clone_first
        if number < first:
            return self.learner.imitation(self._demonstrations())
        return self._iteration(number - first)

    def _demonstrations(self) -> Demonstrations:
        assert self.demonstrations is not None
        states, action = self.demonstrations
        rows = self.learner.sample(len(states))
        return Demonstrations(states[rows], _take(action, rows))

    def _iteration(self, step: int) -> dict[str, Tensor]:
        if self.tuner is not None:
            self.tuner.set_learning_rate(step)
            self.tuner.update(self.windows.batch(step))
        learner = self.learner
        rows = learner.sample(len(self.starts))
        start, elsewhere = self.starts[rows], [states[rows] for states in self.elsewhere]
        demonstrations = real = None
        if self.config.learner.clones_beside:
            demonstrations = self._demonstrations()
        if self.real is not None:
            states, next_states, facts = self.real
            rows = learner.sample(len(states))
            reward, discount = _take(facts, rows).unbind(-1)
            real = Transitions(states[rows], reward, discount, next_states[rows])
        return learner.iteration(start, learner.noise(), demonstrations, elsewhere, real)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All state as named tensors, for a checkpoint."""
        groups = self.learner.tensors()
        if self.tuner is not None:
            groups |= {f"tuner_{name}": items for name, items in self.tuner.tensors().items()}
        return groups

    def meta(self) -> dict[str, Any]:
        """What else a checkpoint says."""
        return {
            "tasks": [task.table() for task in self.tasks],
            "config": resolved_config(self.config),
            "data": self.store.digest,
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Restore what :meth:`tensors` gave."""
        require_same_data(checkpoint, self.store.digest, str(self.store.path))
        self.learner.load(checkpoint)
        if self.tuner is not None:
            tuned = {
                name.removeprefix("tuner_"): items
                for name, items in checkpoint.tensors.items()
                if name.startswith("tuner_")
            }
            self.tuner.load(replace(checkpoint, tensors=tuned))

    def save_policies(self, out: Path) -> None:
        """Write one policy directory a task."""
        made_by = {"command": "extract", "config": asdict(self.config)}
        for index, task in enumerate(self.tasks):
            policy = Policy.from_latent_actor(
                self.learner.model, task, self.learner.actors, index, self.config.learner.networks
            )
            policy.save(out / task.name, made_by, self.learner.critic(index))


class _Pools(NamedTuple):
    """K tasks' state pools of n rows side by side; fields as in `StatePool`."""

    obs: Tensor  # (K, n, obs_dim)
    action: Tensor  # (K, n, action_dim)
    next_obs: Tensor  # (K, n, obs_dim)
    reward: Tensor  # (K, n), and so are the others
    next_discount: Tensor
    return_to_go: Tensor
    steps_to_go: Tensor


def _pools(
    store: EpisodeStore,
    tasks: Sequence[Task],
    model: WorldModel,
    config: ExtractConfig,
    bad: BadData,
    best: float = 1.0,
    ahead: int = 1,
) -> _Pools:
    pools = [
        StatePool.draw(
            store,
            task.name,
            config.pool,
            config.seed,
            suite=model.suite,
            discount=config.learner.discount,
            best=best,
            ahead=ahead,
            symlog_rewards=config.learner.reward_units == "symlog",
            bad=bad,
        )
        for task in tasks
    ]
    device = model.bins.device
    stacked = (
        torch.stack([_cycle(getattr(pool, name), config.pool) for pool in pools]).to(device)
        for name in _Pools._fields
    )
    return _Pools(*stacked)


def _weighted(pools: _Pools, model: WorldModel, ids: Tensor, config: ExtractConfig) -> _Pools:
    """Rows drawn anew with weights that rise with how well they turned out."""
    assert config.learner.clone_temperature is not None
    latent = StartStates(model, pools.obs, ids, frozen=True).content
    device = latent.device
    names = [model.suite.tasks[i].name for i in ids.tolist()]
    generators = [stream(config.seed, f"{name}/clones", device) for name in names]
    outcome = pools.return_to_go / pools.steps_to_go
    rows = cloned_rows(latent, outcome, config.learner.clone_temperature, generators)
    return pools._replace(obs=_take(pools.obs, rows), action=_take(pools.action, rows))


def _cycle(rows: Tensor, count: int) -> Tensor:
    """The first ``count`` rows of endless repetitions, so that tasks' pools stack."""
    return rows[torch.arange(count) % len(rows)]


def _tuner(
    model: WorldModel,
    store: EpisodeStore,
    tasks: Sequence[Task],
    config: ExtractConfig,
    bad: BadData,
) -> tuple[WorldModelLearner, WindowSampler]:
    device, settings = model.bins.device, config.finetune
    windows = WindowSampler(
        store,
        config.learner.horizon,
        settings.batch_size,
        config.seed,
        suite=model.suite,
        tasks=[task.name for task in tasks],
        device=device,
        bad=bad,
    )
    discount = torch.tensor([task.discount for task in model.suite], device=device)
    learner = copy.copy(settings.learner)
    learner.steps = config.learner.iterations
    return WorldModelLearner(model, learner, discount), windows


def extract(config: ExtractConfig) -> Path:
    """Learn a policy for each task, skipping the tasks that already have one in ``out``.

    Returns:
        The directory that holds ``<task>/``, each of which :func:`pwm.load_policy` opens.

    Raises:
        PwmError: for settings, a world model or data that do not fit.
        Interrupted: after saving, when SIGINT or SIGTERM asked for it.
    """
    config.validate()
    device = resolve_device(config.device)
    model = load_world_model(config.checkpoint, device)
    others = _ensemble(config, model)
    tasks = _tasks(config, model.suite)
    bad = BadData(config.on_error)
    store = open_checked(config.data, bad)
    tasks = _with_data(config, store, model.suite, tasks, bad)
    earlier: dict[str, Networks] = {}
    if config.init is not None:
        earlier = earlier_networks(Path(config.init), tasks, model, config.learner)
    out = Path(config.out)
    with open_run(out, "extract", config, MAY_CHANGE):
        for members in planned_groups(out, tasks, partial(_group_size, config, model, others)):
            if all(is_checkpoint(out / task.name) for task in members):
                delete_steps(_group_directory(out, members) / "checkpoints")  # if a kill left some
            else:
                _extract_group(Group(model, store, members, config, bad, earlier, others), out)
    bad.report(console.print)
    return out


def _ensemble(config: ExtractConfig, model: WorldModel) -> list[WorldModel]:
    """The further world models, which must know the same tasks in the same sizes."""
    others = [load_world_model(path, model.bins.device) for path in config.ensemble]
    for path, other in zip(config.ensemble, others, strict=True):
        if suite_table(other.suite) != suite_table(model.suite):
            raise PwmError(
                f"ensemble={path} is a world model of other tasks than {config.checkpoint}; give "
                "models that were pretrained on the same suite."
            )
    return others


def _group_size(
    config: ExtractConfig, model: WorldModel, others: Sequence[WorldModel], tasks: int
) -> int:
    if config.finetune.enabled:
        return 1
    return config.group_size or largest_group(model, config.learner, tasks, others)


def _tasks(config: ExtractConfig, suite: Suite) -> list[Task]:
    if config.tasks is None:
        return list(suite)
    return [suite[name] for name in get_suite(config.tasks).names]


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
    if config.finetune.enabled:  # raises for a task without a window
        WindowIndex.of(store, kept, config.learner.horizon, "train", {}, bad)
    return kept


def _extract_group(group: Group, out: Path) -> None:
    config, total = group.config, group.config.learner.steps
    directory = _group_directory(out, group.tasks)
    checkpoints = directory / "checkpoints"
    checkpoint = load_latest(checkpoints, _KIND, console.print)
    step = 0
    if checkpoint is not None:
        group.load(checkpoint)
        step = int(checkpoint.meta["step"])
    make_directory(directory)
    logger = MetricsLogger(directory, step, config.wandb_project)
    label = group.tasks[0].name if len(group.tasks) == 1 else f"{len(group.tasks)} tasks"
    with closing(logger), StopSignals() as signals, progress_bar() as progress:
        bar = progress.add_task(f"extract {label}", total=total, completed=step, note="")
        first = FirstStep(group.learner.accelerator)
        while step < total:
            metrics = group.step(step)
            step += 1
            first.report(metrics["actor_grad_norm"])
            if step % config.log_every == 0 or step == total:
                logger.log(step, _by_task(group.tasks, metrics))
                progress.update(bar, note=_note(metrics))
            progress.update(bar, completed=step)
            if signals.requested or step % config.save_every == 0 or step == total:
                logger.flush()
                save_step(checkpoints, _KIND, step, group.tensors(), group.meta(), config.keep_last)
                signals.raise_if_requested(
                    f"extraction of {label} saved at iteration {step} of {total} in {out}; the "
                    "same command goes on from there."
                )
    group.save_policies(out)
    delete_steps(checkpoints)


def _note(metrics: Mapping[str, Tensor]) -> str:
    shown = "imagined_return" if "imagined_return" in metrics else "clone_error"
    return f"{shown.replace('_', ' ')} {float(metrics[shown].mean()):.2f}"


def _group_directory(out: Path, tasks: Sequence[Task]) -> Path:
    return out / "groups" / short_name([task.name for task in tasks])


def _by_task(tasks: Sequence[Task], metrics: dict[str, Tensor]) -> dict[str, float]:
    return {
        f"{task.name}/{name}": value
        for name, values in metrics.items()
        for task, value in zip(tasks, values.tolist(), strict=True)
    }
