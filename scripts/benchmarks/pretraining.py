"""Pretraining updates against the reference's, and against what the machine can compute."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from benchmarks.plain_pretraining import PlainPretraining
from benchmarks.rows import EAGER, Row, cpu_ways, interleaved
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
        On a CPU updates with Q and prior, the 5M model at batch 128 and the 1M at batch 256; on a
        GPU the 48M at batch 1024 without and with them, whose note gives the share of the measured
        bfloat16 rate.
    """
    if device == "cpu":
        yield from _on_a_cpu("5M", 128, repeats, ceilings)
        yield from _on_a_cpu("1M", 256, repeats, ceilings)
    else:
        yield from _on_a_gpu(device, repeats, ceilings)


def _on_a_cpu(model: str, batch: int, repeats: int, ceilings: Ceilings) -> Iterator[Row]:
    torch.compiler.reset()
    ways = cpu_ways(ceilings)
    ours = [Update(model, batch, True, way.acceleration, "cpu") for way in ways]
    plain = PlainUpdate(Update(model, batch, True, EAGER, "cpu"))
    plain_ms, *times = interleaved([plain, *ours], repeats)
    cost = pretraining_cost(model, batch, 16, q_and_prior=True)
    for way, taken in zip(ways, times, strict=True):
        what = f"pretraining {model}, Q and prior, batch {batch}, H 16, {way.name}"
        floor = cost.floor_ms(way.rate, ceilings.copy)
        yield Row(what, plain_ms, taken, floor, 2.5, "against plain eager float32")


def _on_a_gpu(device: str, repeats: int, ceilings: Ceilings) -> Iterator[Row]:
    fast, rate = Acceleration("always", "bfloat16"), ceilings.rates["bfloat16"]
    for q_and_prior in (False, True):
        ours = Update("48M", 1024, q_and_prior, fast, device)
        (taken,) = interleaved([ours], repeats, warmup=5)
        cost = pretraining_cost("48M", 1024, 16, q_and_prior)
        share = cost.flops / (taken / 1e3) / rate
        what = "pretraining 48M, batch 1024, H 16, " + (
            "Q and prior" if q_and_prior else "world model only"
        )
        floor = cost.floor_ms(rate, ceilings.copy)
        note = f"{100 * share:.0f} % of the measured bfloat16 rate; 25 % is required"
        yield Row(what, None, taken, floor, None, note)
        del ours
        torch.cuda.empty_cache()
