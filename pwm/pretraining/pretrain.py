"""Pretraining: one world model on offline episodes of many tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pwm.core.described_tasks import require_same_environments, tell_differences
from pwm.core.errors import PwmError
from pwm.core.fingerprints import definitions
from pwm.core.progress import console
from pwm.core.suites import get_suite, task_names
from pwm.data.inspection import open_checked
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import (
    Batch,
    WindowSampler,
)
from pwm.models.further_heads import FurtherHeads
from pwm.models.grouped_weights import of_group
from pwm.models.world_model import (
    KIND,
    WorldModel,
    load_world_model,
    model_of,
    wraps_angles,
)
from pwm.multitask.changes import Changes
from pwm.multitask.config import balance_note, sampling
from pwm.multitask.stacked_low_rank import StackedLowRankDeltas
from pwm.pretraining.architecture import is_to_be_episodic
from pwm.pretraining.config import (
    PretrainConfig,
)
from pwm.pretraining.data_warnings import Traits, data_warnings
from pwm.pretraining.diagnostics import held_out_windows
from pwm.pretraining.finetune import train_all, train_deltas, train_important
from pwm.pretraining.grouped import pretrain_groups
from pwm.pretraining.heads import begun_heads, fingerprints, head_groups, share_heads
from pwm.pretraining.learner import WorldModelLearner
from pwm.pretraining.normalization import observation_moments, widened_moments
from pwm.pretraining.per_task_learner import PerTaskLearner
from pwm.pretraining.surprise import prediction_errors
from pwm.pretraining.targets import Targets
from pwm.pretraining.training_loop import Source, train
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.device import require_room, use_device
from pwm.runtime.distributed import Ranks, join_ranks
from pwm.runtime.grouped import member_of
from pwm.runtime.inputs import inputs_made_of
from pwm.runtime.run_dir import open_run
from pwm.runtime.training_checkpoints import list_steps, load_latest, require_same_data


def pretrain(config: PretrainConfig) -> Path:
    """Train a world model as configured, going on from the newest checkpoint if there is one.

    With ``groups``, one per group of tasks, unless groups share all but some heads of it.

    Returns:
        The run directory, which :func:`load_world_model` opens.

    Raises:
        PwmError: for settings or data that do not fit.
        Interrupted: after saving, when SIGINT or SIGTERM asked for it.
    """
    with join_ranks(config) as ranks:
        if config.groups is None or config.sharing != "hard":
            _pretrain(config, ranks)
        else:
            pretrain_groups(config, ranks, _pretrain)
    return Path(config.out)


def _pretrain(config: PretrainConfig, ranks: Ranks) -> None:
    with ranks.raise_together():
        config.validate()
        device = ranks.device(use_device(config.device))
        parts = ranks.size * config.accumulate
        if config.batch_size % parts:
            raise PwmError(
                f"batch_size={config.batch_size} must be a multiple of {parts}, the number of "
                f"ranks ({ranks.size}) times accumulate ({config.accumulate})."
            )
        bad = BadData(config.on_error)
        store = open_checked(config.data, bad)
        given = None if config.init is None else _given(config, "cpu").unfreeze()
        if given is not None and config.q_and_prior and not given.has_q:
            raise PwmError(
                f"q_and_prior=true, and {config.init} has neither Q nor prior; leave it out, or "
                "begin without init=."
            )
        chosen = store.suite if config.suite is None else get_suite(config.suite, store.suite)
        require_same_environments(chosen, store.suite, store.path)
        suite, names = chosen, None
        if given is not None:
            suite, names = given.suite, None if config.suite is None else chosen.names
            if ranks.main:
                tell_differences(suite, config.init, store.suite, store.path)
        out = Path(config.out)
        episodic = is_to_be_episodic(config.episodic, given, out, (store, suite, bad, names))
        # Both refuse data that lack windows, now rather than after hours of training.
        sampler = WindowSampler(
            store, max(config.horizon.lengths), config.batch_size, config.seed, suite=suite,
            tasks=names, balance=sampling(config.balance), device=device,
            data_device=config.data_device,
            memory=int(config.data_memory * 2**30), bad=bad, share=(ranks.rank, ranks.size),
            terminations=episodic,
        )  # fmt: skip
        groups = head_groups(config, sampler.tasks)
        held_out = held_out_windows(store, suite, config.seed, device, names, bad, episodic)
        build = partial(
            WorldModel, config.model, suite, config.q_and_prior, config.normalize_obs,
            episodic=episodic,
        )  # fmt: skip
        if given is None:
            require_room(build)
        begun = (out / "checkpoints").is_dir()
        sizes = (given.size, given.has_q) if given else (config.model, config.q_and_prior)
        traits = Traits(*sizes, episodic)
        lines = data_warnings(store, suite, names, bad, traits, refuses=not begun)
    sampler.weigh(_episode_weights(config, sampler, device, ranks))
    for line in [*lines, *balance_note(config)] if ranks.main else ():
        ranks.print_rank(line)
    for task, short in sampler.short_episodes().items() if ranks.main else ():
        ranks.print_rank(
            f"task {task}: {len(short)} of {store.count(task)} episodes (the first: {short[0]}) "
            f"have fewer than the {sampler.horizon + 1} rows of a window and are left out."
        )
    with ExitStack() as held:
        with ranks.raise_together():
            if ranks.main:
                made_of = inputs_made_of(config) | definitions(suite) | fingerprints(groups)
                # Checkpoints name their data themselves.
                named = [name for name in made_of if name != "data="]
                settled = named if list_steps(out / "checkpoints") else []
                held.enter_context(open_run(out, "pretrain", config, made_of, settled))
        torch.manual_seed(config.seed)
        model = _built(build, ranks) if given is None else given
        if config.freeze_encoder:
            model.freeze_encoder()
        with ranks.raise_together():
            targets = None if config.finetune == "none" else Targets(config, sampler)
        changes: Changes | None = share_heads(model, groups, config)
        if targets is not None:
            changes = _made_ready(model, targets, config, device, ranks)
        learner = _learner(model, config, device, ranks, changes)
        with ranks.raise_together():
            start = _restore_or_begin(learner, store, config, bad)
        if start >= config.steps and ranks.main:
            ranks.print_rank(f"{out} is at step {start} of {config.steps} already; it is kept.")
        try:
            source = Source(partial(_batches, sampler, learner, targets), store.digest)
            train(learner, config, source, held_out, out, start, ranks)
        finally:
            bad.report(ranks.print_rank)


def _episode_weights(
    config: PretrainConfig, sampler: WindowSampler, device: torch.device, ranks: Ranks
) -> np.ndarray | None:
    """How often each episode's windows are drawn; None for all windows alike.

    The errors are those of the model that training starts from, so they are the same again where
    it goes on.
    """
    sampling, errors = config.sampling, None
    if sampling.surprise and config.init is not None:
        model = _given(config, device)
        found = torch.as_tensor(prediction_errors(model, sampler, config.seed)).to(device)
        errors = ranks.broadcast(found).cpu().numpy()
    return sampler.episode_weights(sampling, errors) if sampling.in_use else None


def _given(config: PretrainConfig, device: torch.device | str) -> WorldModel:
    """The world model of ``init``, of several that for the tasks to train on."""
    assert config.init is not None
    if config.sharing != "hard" and (begun := begun_heads(config)) is not None:
        return model_of(of_group(begun, 0), device)
    return load_world_model(config.init, device, _names_of(config))


def _names_of(config: PretrainConfig) -> list[str] | None:
    """The tasks to train on, if they are said."""
    return None if config.suite is None else list(task_names(config.suite))


def _built(build: Callable[[], WorldModel], ranks: Ranks) -> WorldModel:
    """A new model; of one that is to be divided among ranks only the main one takes the memory."""
    if ranks.parallel != "fsdp":
        return build()
    with nullcontext() if ranks.main else torch.device("meta"):
        model = build()
    torch.set_rng_state(ranks.broadcast(torch.get_rng_state()))
    return model


def _made_ready(
    model: WorldModel,
    targets: Targets,
    config: PretrainConfig,
    device: torch.device,
    ranks: Ranks,
) -> Changes | None:
    """Have that of a model train which ``finetune`` says."""
    if config.finetune not in ("adaptive", "lora"):
        return train_all(model).deltas
    with ranks.raise_together():
        if ranks.parallel is not None:
            raise PwmError(
                f"finetune={config.finetune} runs in one process; start it without torchrun and "
                "parallel=."
            )
    assert config.init is not None
    model = model.to(device)
    if config.finetune == "adaptive":
        windows = targets.windows(config.finetuning.windows)
        ready = train_important(model, targets.ids, windows, config.finetuning, config)
    else:
        base, out = member_of(Path(config.init), _names_of(config)), Path(config.out)
        ready = train_deltas(model, targets.ids, config.finetuning, base, out)
    for line in ready.lines:
        console.print(line, soft_wrap=True)
    return ready.deltas


def _learner(
    model: WorldModel,
    config: PretrainConfig,
    device: torch.device,
    ranks: Ranks,
    changes: Changes | None,
) -> WorldModelLearner:
    discount = torch.tensor([task.discount for task in model.suite], device=device)
    accelerator = Acceleration(config.compile, config.precision).prepare(device)
    if isinstance(changes, StackedLowRankDeltas):
        return PerTaskLearner(model, config, discount, accelerator, changes)
    if ranks.parallel is None and config.accumulate == 1:
        model = model.to(device)
        heads = _further_heads(model, config)
        return WorldModelLearner(model, config, discount, accelerator, changes, heads)
    if config.heads.members > 1:
        raise PwmError(
            f"heads.members={config.heads.members} trains in one process; start it without "
            "torchrun."
        )
    from pwm.pretraining.parallel_learner import ParallelLearner

    if ranks.parallel != "fsdp":
        model = model.to(device)
    return ParallelLearner(
        model, config, discount, accelerator, ranks, config.accumulate, config.seed, changes
    )


def _further_heads(model: WorldModel, config: PretrainConfig) -> FurtherHeads | None:
    count = config.heads.members - 1
    return FurtherHeads(model, count, config.seed).to(model.bins.device) if count else None


def _restore_or_begin(
    learner: WorldModelLearner, store: EpisodeStore, config: PretrainConfig, bad: BadData
) -> int:
    directory = Path(config.out) / "checkpoints"
    checkpoint = load_latest(directory, KIND, console.print, learner.layout)
    if checkpoint is not None:
        require_same_data(checkpoint, store.digest, str(store.path))
        learner.load(checkpoint)
        learner.model.wrap_angles = wraps_angles(checkpoint.meta)
        return int(checkpoint.meta["step"])
    model = learner.model
    how = "data" if config.init is None else config.init_normalization
    if not model.normalize_obs or how == "keep" or config.freeze_encoder:
        return 0
    if how == "widen":
        before = model.obs_mean.cpu().numpy(), model.obs_scale.cpu().numpy()
        moments = widened_moments(store, model.suite, *before, bad, model.wrap_angles)
    else:
        model.wrap_angles = True
        moments = observation_moments(store, model.suite, bad, model.wrap_angles)
    model.obs_mean.copy_(torch.as_tensor(moments[0]))
    model.obs_scale.copy_(torch.as_tensor(moments[1]))
    return 0


def _batches(
    sampler: WindowSampler,
    learner: WorldModelLearner,
    targets: Targets | None,
    start: int,
    end: int,
    horizon: int,
) -> Iterator[Batch]:
    """The batches of some updates, of shares of tasks that may change as training goes on."""
    if targets is not None:
        yield from targets.batches(start, end, horizon)
        return
    progress = learner.balance.progress
    if progress is None:
        yield from sampler.iterate(start, end, horizon=horizon)
        return
    ids = [learner.model.suite.names.index(task.name) for task in sampler.tasks]
    for first, last in progress.spans(start, end):
        progress.renew(first)
        sampler.task_shares = progress.shares(ids).numpy()
        yield from sampler.iterate(first, last, horizon=horizon)
