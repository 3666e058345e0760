"""Extraction iterations against the reference's, and many tasks at once against one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from benchmarks.plain_extraction import PlainExtraction
from benchmarks.rows import EAGER, Row, cpu_ways, interleaved
from roofline import Ceilings, extraction_cost, model_size

from pwm.core.suites import get_suite
from pwm.extraction.config import ActorCriticConfig, CriticConfig
from pwm.extraction.inputs import Inputs
from pwm.extraction.learner import ActorCriticLearner
from pwm.models.world_model import WorldModel
from pwm.runtime.acceleration import Acceleration

ORIGINAL = CriticConfig(iterations=8, batches=4)


class Iteration:
    """A learner of K tasks of MT80 with random networks, and inputs for its iterations."""

    def __init__(
        self, model: str, tasks: int, config: ActorCriticConfig, how: Acceleration, device: str
    ) -> None:
        torch.manual_seed(0)
        suite, self.device = get_suite("mt80"), torch.device(device)
        world_model = WorldModel(model_size(model), suite).to(self.device)
        world_model.eval().requires_grad_(False)
        self.learner = ActorCriticLearner(
            world_model, suite.tasks[:tasks], config, 0, how.prepare(self.device)
        )
        start = torch.randn(tasks, config.batch_size, suite.obs_dim, device=self.device)
        self.start = world_model.encode(start, self.learner.task_ids.unsqueeze(1))

    def __call__(self) -> None:
        """One iteration with fresh random numbers."""
        self.learner.iteration(Inputs(self.start, self.learner.noise()))

    def plain(self) -> Callable[[], object]:
        """The same by the reference's equations, for one task."""
        plain = PlainExtraction(self.learner)
        return lambda: plain.iteration(self.start[0])


def rows(device: str, repeats: int, ceilings: Ceilings) -> Iterator[Row]:
    """Measure.

    Yields:
        On a CPU the 5M model at batch 128, one task and eight, on a GPU the 5M and the 48M at
        batch 512.
    """
    if device == "cpu":
        yield from _on_a_cpu(repeats, ceilings)
    else:
        yield from _on_a_gpu(device, repeats, ceilings)


def _on_a_cpu(repeats: int, ceilings: Ceilings) -> Iterator[Row]:
    shipped = ActorCriticConfig(batch_size=128)
    original = ActorCriticConfig(batch_size=128, critic=ORIGINAL)
    plain = Iteration("5M", 1, original, EAGER, "cpu").plain()
    schedules = (
        ("PWM's critic schedule, 8 x 4", original, 2.5),
        ("shipped schedule", shipped, 8.0),
    )
    variants = [(*schedule, way) for schedule in schedules for way in cpu_ways(ceilings)]
    for tasks, count in ((1, repeats), (8, min(repeats, 3))):
        torch.compiler.reset()
        ours = [
            Iteration("5M", tasks, config, way.acceleration, "cpu")
            for _, config, _, way in variants
        ]
        plain_ms, *times = interleaved([plain, *ours], count)
        for (name, config, required, way), taken in zip(variants, times, strict=True):
            floor = extraction_cost("5M", config, tasks).floor_ms(way.rate, ceilings.copy)
            many = "one task" if tasks == 1 else f"{tasks} tasks at once, a task"
            what = f"extraction 5M, batch 128, H 16, {many}, {name}, {way.name}"
            note = "against plain eager float32, 8 x 4"
            yield Row(what, plain_ms, taken / tasks, floor / tasks, required, note)


def _on_a_gpu(device: str, repeats: int, ceilings: Ceilings) -> Iterator[Row]:
    shipped, fast = ActorCriticConfig(), Acceleration("always", "bfloat16")
    original = ActorCriticConfig(critic=ORIGINAL)
    rate = ceilings.rates["bfloat16"]
    for model, many_required in (("5M", 4.0), ("48M", 1.5)):
        ours = Iteration(model, 1, shipped, fast, device)
        plain = Iteration(model, 1, original, EAGER, device).plain()
        plain_ms, one_ms = interleaved([plain, ours], repeats, warmup=5)
        floor = extraction_cost(model, shipped, 1).floor_ms(rate, ceilings.copy)
        what = f"extraction {model}, batch 512, H 16, one task, shipped schedule"
        required = 10.0 if model == "48M" else None
        yield Row(what, plain_ms, one_ms, floor, required, "against plain eager float32, 8 x 4")
        del ours, plain
        torch.cuda.empty_cache()
        tasks = 80
        all_tasks = Iteration(model, tasks, shipped, fast, device)
        (many_ms,) = interleaved([all_tasks], repeats, warmup=5)
        floor = extraction_cost(model, shipped, tasks).floor_ms(rate, ceilings.copy)
        minutes = many_ms * 10_000 / 60_000
        note = f"10,000 iterations of all {tasks} at this rate: {minutes:.1f} minutes"
        what = f"extraction {model}, batch 512, {tasks} tasks at once, a task"
        yield Row(what, one_ms, many_ms / tasks, floor / tasks, many_required, note)
        del all_tasks
        torch.cuda.empty_cache()
