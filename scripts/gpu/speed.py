"""How fast the learners and the planner are, beside what they should reach.

A row says the milliseconds of a call, the seconds until its first result and until it is captured,
the most memory, and then which kernels it launches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from gpu.facts import DEVICE, TINY, first_calls, forget, kernels, memory, part, say, timed
from roofline import model_size

from pwm.core.suites import get_suite
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import WindowSampler
from pwm.evaluation.mppi import Planner, PlannerConfig
from pwm.evaluation.mppi_guides import TDMPC2Guide
from pwm.extraction.config import ActorCriticConfig
from pwm.models.world_model import WorldModel
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.seeding import stream

ROOT = Path(__file__).resolve().parents[2]
WINDOWS = ("gpu", "memory", "files")
_FAST = Acceleration("never" if TINY else "always", "bfloat16")
_EXACT = Acceleration("never", "float32")
_SMALL = {"batch_size": 8, "horizon": 2} if TINY else {}


@dataclass(frozen=True)
class Row:
    """One kind of work.

    Attributes:
        what: in words.
        make: everything it needs; the call that is timed.
        repeats: timed calls.
        tflop: of its matrix products, as ``scripts/roofline.py`` counts them.
        target_ms: what it should take at most on an H200.
    """

    what: str
    make: Callable[[], Callable[[], object]]
    repeats: int
    tflop: float | None = None
    target_ms: float | None = None


def _extraction(model: str, tasks: int) -> Callable[[], object]:
    from benchmarks.extraction import Iteration

    config = ActorCriticConfig(**_SMALL)
    return Iteration("tiny" if TINY else model, 2 if TINY else tasks, config, _FAST, DEVICE)


def _plain_extraction(model: str) -> Callable[[], object]:
    from benchmarks.extraction import ORIGINAL, Iteration

    config = ActorCriticConfig(critic=ORIGINAL, **_SMALL)
    return Iteration("tiny" if TINY else model, 1, config, _EXACT, DEVICE).plain()


def _pretraining(q_and_prior: bool) -> Callable[[], object]:
    from benchmarks.pretraining import Update

    size = ("tiny", 8) if TINY else ("48M", 1024)
    return Update(*size, q_and_prior, _FAST, DEVICE)


def _planner(environments: int, how: Acceleration) -> Callable[[], object]:
    suite, device, n = get_suite("mt80"), torch.device(DEVICE), 4 if TINY else environments
    torch.manual_seed(0)
    model = WorldModel(model_size("tiny" if TINY else "48M"), suite, q_and_prior=True)
    model = model.to(device).eval().requires_grad_(False)
    config = PlannerConfig(
        samples=64 if TINY else 512, compile=how.compile, precision=how.precision
    )
    planner = Planner(model, TDMPC2Guide(model), config)
    obs = torch.randn(n, suite.obs_dim, device=device)
    start = torch.zeros(n, config.horizon, suite.action_dim, device=device)
    streams = [stream(i, "speed", device) for i in range(n)]
    return lambda: planner.plan(obs, torch.arange(n, device=device) % 80, start, streams)


ROWS = {
    "48Mx80": Row("extraction 48M x 80 tasks", partial(_extraction, "48M", 80), 6, 34.24, 90),
    "48Mx27": Row("extraction 48M x 27 tasks", partial(_extraction, "48M", 27), 6, 11.56),
    "5Mx80": Row("extraction 5M x 80 tasks", partial(_extraction, "5M", 80), 6, 8.29, 40),
    "48Mx1": Row("extraction 48M x 1 task", partial(_extraction, "48M", 1), 20, 0.43, 4),
    "5Mx1": Row("extraction 5M x 1 task", partial(_extraction, "5M", 1), 20, 0.104),
    "pretrain": Row(
        "pretraining 48M, batch 1024, without Q", partial(_pretraining, False), 10, 1.404, 5.5
    ),
    "pretrain_q": Row(
        "pretraining 48M, batch 1024, with Q", partial(_pretraining, True), 10, 5.454, 15
    ),
    "planner": Row("planner 48M, 80 environments", partial(_planner, 80, _FAST), 5, target_ms=80),
    "planner_float32": Row(
        "planner 48M, 80 environments, eager float32", partial(_planner, 80, _EXACT), 2
    ),
    "plain": Row(
        "plain eager float32, 8 x 4 critic steps, 48M x 1", partial(_plain_extraction, "48M"), 4
    ),
}
PARTS = tuple(ROWS)


def check(wanted: Sequence[str]) -> None:
    """Measure some of PARTS, one after the other."""
    for name in wanted:
        with part(name):
            _measure(name, ROWS[name])
        forget()


def _measure(name: str, row: Row) -> None:
    forget()
    call = row.make()
    first = first_calls(call)
    say(f"{name}, first", first)  # at once: it takes longest
    took = timed(call, repeats=2 if TINY else row.repeats)
    fact = {"what": row.what, **took, "target_ms": row.target_ms, **first, **memory()}
    if row.tflop is not None and not TINY:
        fact["tflop_s"] = round(row.tflop / took["ms"] * 1e3, 1)
    say(name, fact)
    say(f"{name}, kernels", kernels(call))


def windows(wanted: Sequence[str]) -> None:
    """How long a batch of windows takes, by where the data's rows are."""
    store = EpisodeStore.open(ROOT / "checkpoints/mt80/data")
    places = {"gpu": (DEVICE, 0), "memory": ("cpu", 2**32), "files": ("cpu", 0)}
    for name in wanted:
        with part(name):
            _draw(name, store, *places[name])


def _draw(name: str, store: EpisodeStore, where: str, room: int) -> None:
    draws, size = (5, 64) if TINY else (200, 1024)
    sampler = WindowSampler(store, 16, size, 0, device=DEVICE, data_device=where, memory=room)

    def draw() -> None:
        for _ in sampler.iterate(0, draws):
            pass

    draw()
    took = timed(draw, repeats=3)
    what = f"{size} windows, rows in {name}" if name != "gpu" else f"{size} windows, rows on GPU"
    say(name, {"what": what, "ms": round(took["ms"] / draws, 3)})
