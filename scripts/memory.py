"""Work out the memory of a GPU that pretrains, without any: ``python scripts/memory.py``.

Prints a Markdown table in GB (10^9 bytes) for models of MT80 with Q and prior in bfloat16. The
model is built on torch's meta device; what the forward pass keeps for the backward one is counted
from the tensors that autograd saves, in eager mode with a GPU's kernels. Temporaries, the
allocator's waste and the data come on top.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from roofline import (
    model_on_meta,
    random_batch,
    shapes_alone,
    trained_numbers,
    weightless_learner,
)

from pwm.pretraining.fsdp import cut_dimension

MODELS = ("48M", "317M", "1B")
RANKS = (8, 64)
WINDOWS, HORIZON = 256, 16
HEADER = (
    "model", "GPUs", "weights", "gradients", "Adam", "target Q", "gathered", "casts of weights",
    f"activations, {WINDOWS} windows", "sum",
)  # fmt: skip
_FLOAT = 4  # bytes of float32


@dataclass(frozen=True)
class Memory:
    """Bytes on a GPU.

    Attributes:
        weights, gradients, adam, target: this rank's part of them, all in float32. The target is
            the Q ensemble's.
        gathered: of a sharded model, the weights that stay whole from the forward pass to the
            backward one, and the Q ensemble once more: as target, and as gradients not yet
            scattered.
        casts: what the forward pass keeps however few the windows: weights in bfloat16.
        activations: what it keeps of the windows.
    """

    weights: float
    gradients: float
    adam: float
    target: float
    gathered: float
    casts: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(astuple(self))


def memory(name: str, ranks: int, sharded: bool, windows: int, horizon: int = HORIZON) -> Memory:
    """Of each of some ranks that train a model with Q and prior.

    Args:
        name: of the model's preset.
        ranks: how many there are.
        sharded: whether each holds a part of the model, or the whole.
        windows: that a rank takes in one pass.
        horizon: steps of a window.
    """
    model = model_on_meta(name, q_and_prior=True)
    target = set(model.q_target.parameters())
    parts = ranks if sharded else 1
    whole = _FLOAT * sum(p.numel() for p in model.prior.parameters())
    mine = whole + _FLOAT * sum(
        part_numbers(p, parts)
        for part, p in _with_parts(model)
        if p not in target and part != "prior"
    )
    ensemble = _FLOAT * sum(p.numel() for p in model.q_ensemble.parameters())
    gathered = _FLOAT * trained_numbers(model) - whole + ensemble if sharded else 0
    casts, each = kept_for_backward(name, horizon)
    return Memory(
        mine, mine, 2 * mine, _FLOAT * sum(part_numbers(p, parts) for p in target), gathered,
        casts, windows * each,
    )  # fmt: skip


def part_numbers(parameter: Tensor, parts: int) -> int:
    """Numbers in the largest of the parts that a parameter is cut into."""
    length = parameter.shape[cut_dimension(parameter.shape, parts)]
    return parameter.numel() // length * math.ceil(length / parts)


@cache
def kept_for_backward(name: str, horizon: int) -> tuple[float, float]:
    """Bytes that the loss of a batch keeps in bfloat16: whatever the batch, and for each window."""
    few, many = (_saved_bytes(name, horizon, windows) for windows in (8, 16))
    each = (many - few) / 8
    return few - 8 * each, each


def _saved_bytes(name: str, horizon: int, windows: int) -> int:
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage
        return tensor

    model = model_on_meta(name, q_and_prior=True)
    with (
        shapes_alone(),
        patch("pwm.models.layers.mish", F.mish),
    ):  # a GPU's, which keeps its input alone
        learner = weightless_learner(model, bfloat16=True)
        batch = random_batch(model.suite, horizon, windows, torch.device("cpu"))
        noise = learner._noise(batch)
        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            learner.accelerator.arithmetic(),
        ):
            learner._loss(batch, noise)
        weights = {p.untyped_storage()._cdata for p in model.parameters()}
        return sum(storage.nbytes() for key, storage in saved.items() if key not in weights)


def _with_parts(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in model.named_parameters():
        yield name.split(".")[0], parameter


def table(models: Sequence[str] = MODELS, windows: int = WINDOWS) -> list[str]:
    """The lines of the Markdown table."""
    lines = ["| " + " | ".join(HEADER) + " |", "| --- " * len(HEADER) + "|"]
    for name in models:
        layouts = [("1, or any number data parallel", 1, False)]
        layouts += [(f"{ranks}, sharded", ranks, True) for ranks in RANKS]
        for label, ranks, sharded in layouts:
            found = memory(name, ranks, sharded, windows)
            figures = [*astuple(found), found.total]
            lines.append(
                f"| {name} | {label} | " + " | ".join(f"{x / 1e9:.2f}" for x in figures) + " |"
            )
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--windows", type=int, default=WINDOWS, help="of a rank in one pass")
    given = parser.parse_args()
    print("\n".join(table(given.models, given.windows)))


if __name__ == "__main__":
    main()
