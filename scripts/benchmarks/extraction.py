"""Extraction iterations against the reference's, and many tasks at once against one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from benchmarks.plain_extraction import PlainExtraction
from benchmarks.rows import Row, interleaved
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
        On a CPU the 5M model at batch 128, on a GPU the 5M and the 48M at batch 512.
    """
    if device == "cpu":
        yield from _on_a_cpu(repeats, ceilings)
    else:
        yield from _on_a_gpu(device, repeats, ceilings)


def _on_a_cpu(repeats: int, ceilings: Ceilings) -> Iterator[Row]:
    original = ActorCriticConfig(batch_size=128, critic=ORIGINAL)
    shipped = ActorCriticConfig(batch_size=128)
    exact, fast = Acceleration("always", "float32"), Acceleration("always", "bfloat16")
    eager = Acceleration("never", "float32")
    ours = [
        Iteration("5M", 1, original, exact, "cpu"),
        Iteration("5M", 1, original, fast, "cpu"),
        Iteration("5M", 1, shipped, exact, "cpu"),
        Iteration("5M", 1, shipped, fast, "cpu"),
    ]
    plain = Iteration("5M", 1, original, eager, "cpu").plain()
    plain_ms, *times = interleaved([plain, *ours], repeats, warmup=2)
    names = [
        ("critics 8 x 4, compiled, float32", original, ceilings.float32, None),
        ("critics 8 x 4, compiled, bfloat16", original, ceilings.bfloat16, 1.4),
        ("shipped critic schedule, compiled, float32", shipped, ceilings.float32, None),
        ("shipped critic schedule, compiled, bfloat16", shipped, ceilings.bfloat16, 4.0),
    ]
    for (name, config, rate, required), ours_ms in zip(names, times, strict=True):
        floor = extraction_cost("5M", config, 1).floor_ms(rate, ceilings.copy)
        what = f"extraction 5M, batch 128, H 16, one task, {name}"
        yield Row(what, plain_ms, ours_ms, floor, required, "against plain eager float32, 8 x 4")
    for name, config in (("8 x 4", original), ("shipped", shipped)):
        single, eight = (Iteration("5M", k, config, fast, "cpu") for k in (1, 8))
        one_by_one = partial(_times, single, 8)
        ones_ms, eight_ms = interleaved([one_by_one, eight], repeats, warmup=2)
        floor = extraction_cost("5M", config, 8).floor_ms(ceilings.bfloat16, ceilings.copy) / 8
        what = f"extraction 5M, batch 128, 8 tasks at once, a task, {name} critics, bfloat16"
        yield Row(what, ones_ms / 8, eight_ms / 8, floor, 1.15, "against one task at a time")


def _times(function: Callable[[], object], times: int) -> None:
    for _ in range(times):
        function()


def _on_a_gpu(device: str, repeats: int, ceilings: Ceilings) -> Iterator[Row]:
    shipped, fast = ActorCriticConfig(), Acceleration("always", "bfloat16")
    original = ActorCriticConfig(critic=ORIGINAL)
    eager = Acceleration("never", "float32")
    for model, many_required in (("5M", 4.0), ("48M", 1.5)):
        ours = Iteration(model, 1, shipped, fast, device)
        plain = Iteration(model, 1, original, eager, device).plain()
        plain_ms, one_ms = interleaved([plain, ours], repeats, warmup=5)
        floor = extraction_cost(model, shipped, 1).floor_ms(ceilings.bfloat16, ceilings.copy)
        what = f"extraction {model}, batch 512, H 16, one task, shipped schedule"
        required = 10.0 if model == "48M" else None
        yield Row(what, plain_ms, one_ms, floor, required, "against plain eager float32, 8 x 4")
        del ours, plain
        torch.cuda.empty_cache()
        tasks = 80
        all_tasks = Iteration(model, tasks, shipped, fast, device)
        (many_ms,) = interleaved([all_tasks], repeats, warmup=5)
        floor = extraction_cost(model, shipped, tasks).floor_ms(ceilings.bfloat16, ceilings.copy)
        minutes = many_ms * 10_000 / 60_000
        note = f"10,000 iterations of all {tasks} at this rate: {minutes:.1f} minutes"
        what = f"extraction {model}, batch 512, {tasks} tasks at once, a task"
        yield Row(what, one_ms, many_ms / tasks, floor / tasks, many_required, note)
        del all_tasks
        torch.cuda.empty_cache()
