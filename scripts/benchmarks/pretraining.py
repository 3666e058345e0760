"""Pretraining updates against the reference's, and against what the machine can compute."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from benchmarks.plain_pretraining import PlainPretraining
from benchmarks.rows import Row, interleaved
from roofline import Ceilings, model_size, pretraining_cost, random_batch

from pwm.core.suites import get_suite
from pwm.models.world_model import WorldModel
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner
from pwm.runtime.acceleration import Acceleration


class Update:
    """A learner of MT80 with fresh networks and a batch of noise."""

    def __init__(
        self, model: str, batch: int, q_and_prior: bool, how: Acceleration, device: str
    ) -> None:
        torch.manual_seed(0)
        suite, where = get_suite("mt80"), torch.device(device)
        world_model = WorldModel(model_size(model), suite, q_and_prior).to(where)
        discount = torch.tensor([task.discount for task in suite], device=where)
        self.learner = WorldModelLearner(world_model, LearnerConfig(), discount, how.prepare(where))
        self.batch = random_batch(suite, 16, batch, where)

    def __call__(self) -> None:
        """One update."""
        self.learner.update(self.batch)


class PlainUpdate:
    """The same by the reference's equations."""

    def __init__(self, update: Update) -> None:
        self.update, self.plain = update, PlainPretraining(update.learner)

    def __call__(self) -> None:
        """One update."""
        learner, batch = self.update.learner, self.update.batch
        self.plain.update(batch, learner._noise(batch) if learner.model.has_q else None)


def rows(device: str, repeats: int, ceilings: Ceilings) -> Iterator[Row]:
    """Measure.

    Yields:
        On a CPU the 5M model at batch 128 with Q and prior; on a GPU the 48M at batch 1024 without
        and with them, whose note gives the share of the measured bfloat16 rate.
    """
    eager = Acceleration("never", "float32")
    fast = Acceleration("always", "bfloat16")
    if device == "cpu":
        exact = Acceleration("always", "float32")
        ours = [Update("5M", 128, True, how, device) for how in (exact, fast)]
        plain = PlainUpdate(Update("5M", 128, True, eager, device))
        plain_ms, exact_ms, fast_ms = interleaved([plain, *ours], repeats, warmup=2)
        cost = pretraining_cost("5M", 128, 16, q_and_prior=True)
        for name, taken, rate, required in (
            ("float32", exact_ms, ceilings.float32, None),
            ("bfloat16", fast_ms, ceilings.bfloat16, 1.5),
        ):
            what = f"pretraining 5M, Q and prior, batch 128, H 16, compiled, {name}"
            floor = cost.floor_ms(rate, ceilings.copy)
            yield Row(what, plain_ms, taken, floor, required, "against plain eager float32")
        return
    for q_and_prior in (False, True):
        ours = Update("48M", 1024, q_and_prior, fast, device)
        (taken,) = interleaved([ours], repeats, warmup=5)
        cost = pretraining_cost("48M", 1024, 16, q_and_prior)
        share = cost.flops / (taken / 1e3) / ceilings.bfloat16
        what = "pretraining 48M, batch 1024, H 16, " + (
            "Q and prior" if q_and_prior else "world model only"
        )
        floor = cost.floor_ms(ceilings.bfloat16, ceilings.copy)
        note = f"{100 * share:.0f} % of the measured bfloat16 rate; 25 % is required"
        yield Row(what, None, taken, floor, None, note)
        del ours
        torch.cuda.empty_cache()
