"""Settings of the balance of tasks in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pwm.core.errors import PwmError
from pwm.core.validation import (
    require_at_least,
    require_choice,
    require_positive,
    require_share,
    require_valid,
)
from pwm.multitask.aggregation import make_aggregator

SAMPLING = {"task": "task", "uniform": "task", "rows": "rows", "size": "rows"}
"""Words for how windows are drawn, and what the sampler calls it; all else draws by ``task``."""

EVEN = ("task", "uniform")
"""Balances that treat all tasks alike."""

DRAWING = ("rows", "size", "progress")
"""Balances that say how often tasks are drawn."""

BALANCES = (*SAMPLING, "uncertainty", "gradnorm", "dwa", "progress")
AGGREGATES = ("mean", "upgrad", "pcgrad", "cagrad", "mgda", "imtl_g", "aligned_mtl", "dualproj")


@dataclass
class Balancing:
    """What the ways of balancing tasks depend on, each on some of it.

    Attributes:
        lr: learning rate of the weights that ``uncertainty`` and ``gradnorm`` learn.
        alpha: of ``gradnorm``: 0 makes the gradients of all tasks equally large; the higher, the
            more those of tasks whose loss has fallen less are to exceed the others.
        temperature: of ``dwa``: the higher, the more even the weights.
        period: updates over which ``dwa`` averages a loss before it compares it with the period
            before, and after which ``progress`` draws tasks anew by the change of their losses.
        smoothing: of ``progress``: what a smoothed loss keeps of itself at an update.
        floor: of ``progress``: the share of every batch that is divided evenly among tasks.
    """

    lr: float = 0.01
    alpha: float = 1.5
    temperature: float = 2.0
    period: int = 1000
    smoothing: float = 0.99
    floor: float = 0.25

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 0, "lr", "alpha")
        require_positive(self, "temperature")
        require_at_least(self, 1, "period")
        require_share(self, "smoothing", "floor")
        if self.smoothing == 1:
            raise PwmError("smoothing=1.0 must be below 1; a loss that keeps all never changes.")


def sampling(balance: str) -> str:
    """How the sampler is to draw windows for a ``balance``, in its own words."""
    return SAMPLING.get(balance, "task")


def require_balance(config: Any) -> None:
    """Raise PwmError unless ``balance``, ``aggregate`` and ``balancing`` go together."""
    require_choice(config, "balance", BALANCES)
    require_choice(config, "aggregate", AGGREGATES)
    require_valid("balancing", config.balancing)
    if config.balance == "gradnorm" and config.aggregate != "mean":
        raise PwmError(
            f"balance=gradnorm does not go with aggregate={config.aggregate}: both set how large "
            "the gradients of tasks are; leave one of them out."
        )
    make_aggregator(config.aggregate)  # says what is not installed


def balance_note(config: Any) -> list[str]:
    """A line where a run is too short for its ``balance`` to do anything."""
    period = config.balancing.period
    if config.balance not in ("dwa", "progress") or config.steps > 2 * period:
        return []
    return [
        f"balance={config.balance} compares losses of two periods of balancing.period={period:,} "
        f"updates each, so all of these steps={config.steps:,} treat tasks alike; give a period of "
        f"{max(1, config.steps // 10):,}."
    ]


def require_whole_weights(config: Any) -> None:
    """Raise PwmError if a config divides weights among ranks and needs every task's gradients."""
    for name, value in (("balance", config.balance), ("aggregate", config.aggregate)):
        if value == "gradnorm" or (name == "aggregate" and value != "mean"):
            raise PwmError(
                f"{name}={value} does not go with parallel=fsdp, where no rank has the gradients "
                "of all weights; give parallel=ddp, or another balance and aggregate=mean."
            )
