"""A world model made ready for fine-tuning: which of its parameters train, and what is saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pwm.core.errors import PwmError
from pwm.data.windows.batch import Batch
from pwm.models.grouped_weights import task_groups
from pwm.models.low_rank import base_entry
from pwm.models.widening import EMBEDDING, MOMENTS
from pwm.models.world_model import WorldModel, find_world_model
from pwm.multitask.finetuning import Finetuning
from pwm.multitask.importance import Units, fisher, keep_only
from pwm.multitask.low_rank import LowRankDeltas
from pwm.multitask.stacked_low_rank import StackedLowRankDeltas
from pwm.pretraining.learner import LearnerConfig
from pwm.pretraining.losses import model_terms, roll_out, total_loss
from pwm.runtime.training_checkpoints import step_name


class Windows(NamedTuple):
    """Windows by which the importance of weights is measured."""

    target: Batch
    others: Batch | None


class Ready(NamedTuple):
    """What fine-tuning begins with.

    Attributes:
        deltas: what trains and is saved in place of the model, if it is low-rank changes.
        lines: what there is to say of it.
    """

    deltas: LowRankDeltas | None
    lines: list[str]


def train_all(model: WorldModel) -> Ready:
    """Have all of a world model train."""
    model.unfreeze()
    return Ready(None, [])


def train_important(
    model: WorldModel,
    targets: Sequence[int],
    windows: Windows,
    settings: Finetuning,
    config: LearnerConfig,
) -> Ready:
    """Have the target tasks' embeddings train, and of the layers what matters most for them.

    Args:
        model: is changed.
        targets: ids of the tasks.
        windows: of them and of the others.
        settings: how much is chosen, and by what.
        config: of the loss.
    """
    model.unfreeze()
    layers = linear_layers(model)
    units = Units(layers)
    parameters = units.parameters
    target = fisher(parameters, window_losses(model, windows.target, config))
    others = None
    if windows.others is not None:
        others = fisher(parameters, window_losses(model, windows.others, config))
    chosen = units.chosen(target, others, settings.part, settings.by)
    model.requires_grad_(False)
    units.train_only(chosen)
    _train_embeddings(model, targets)
    sizes = {name: int(mask.sum()) for name, mask in chosen.items()}
    shown = ", ".join(f"{name} {n} of {chosen[name].numel()}" for name, n in sizes.items() if n)
    return Ready(None, [f"units that train: {shown}.", *_frozen_q(model)])


def train_deltas(
    model: WorldModel, targets: Sequence[int], settings: Finetuning, base: Path, out: Path
) -> Ready:
    """Have the target tasks' embeddings train, and low-rank changes of the layers.

    Args:
        model: is changed; what it computes does not.
        targets: ids of the tasks.
        settings: rank and scale, and whether each target has changes of its own.
        base: the world model whose tensors these are, apart from embeddings, moments and padding.
        out: the run's directory.

    Raises:
        PwmError: if weights of the base differ by group of tasks.
    """
    found = find_world_model(base)
    if task_groups(found.meta):
        raise PwmError(
            f"finetune=lora saves small changes of {base}, whose weights differ by group of tasks; "
            "give finetune=full, or a world model whose weights all tasks share."
        )
    entry = base_entry(found.path, out / "checkpoints" / step_name(0), settings.scale)
    small = (EMBEDDING, *MOMENTS)
    changed = model.train(), linear_layers(model), settings.rank, entry, small
    deltas = (
        StackedLowRankDeltas(*changed, targets, model.suite.names)
        if settings.per_task
        else LowRankDeltas(*changed)
    )
    _train_embeddings(model, targets)
    return Ready(deltas, _frozen_q(model))


def linear_layers(model: WorldModel) -> dict[str, nn.Module]:
    """All linear layers but those of Q ensemble and prior, by name."""
    parts = ["encoder", "dynamics", "reward_head", *["termination_head"] * model.episodic]
    return {
        f"{part}.{name}": layer
        for part in parts
        for name, layer in model.get_submodule(part).named_children()
    }


def window_losses(model: WorldModel, batch: Batch, config: LearnerConfig) -> Iterator[Tensor]:
    """The loss of each window of a batch by itself, without Q ensemble and prior."""
    for i in range(len(batch.task)):
        part = batch.part(slice(i, i + 1))
        terms = model_terms(model, part, roll_out(model, part), config.rho)
        yield total_loss(terms, config.loss)[0]


def _train_embeddings(model: WorldModel, tasks: Sequence[int]) -> None:
    """Have the embeddings of some tasks train, if there are any."""
    if not model.size.task_dim:
        return
    weight = model.task_emb.weight
    assert isinstance(weight, nn.Parameter)
    weight.requires_grad_(True)
    rows = torch.zeros(len(weight), 1, dtype=torch.bool, device=weight.device)
    rows[list(tasks)] = True
    keep_only(weight, rows)


def train_embeddings_alone(model: WorldModel, tasks: Sequence[int]) -> Ready:
    """Have nothing but the embeddings of some tasks train."""
    model.train().requires_grad_(False)
    _train_embeddings(model, tasks)
    return Ready(None, [])


def _frozen_q(model: WorldModel) -> list[str]:
    return ["Q ensemble and policy prior stay as they are."] if model.has_q else []
