"""Measure speed as ratios, side by side in one run, and print one Markdown table.

``python scripts/benchmark.py`` measures on the CPU, ``device=cuda`` on a GPU. Other settings:
``only=extraction`` (or pretraining, sampling, evaluation), ``repeats=5``, ``out=benchmark.md``.
Every time is a median; ``floor`` is what the measured rates of the machine allow at least.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import evaluation, extraction, pretraining, sampling
from benchmarks.rows import Row
from roofline import measure_ceilings

PARTS = ("extraction", "pretraining", "sampling", "evaluation")
_EVALUATIONS = 3  # at most, of a minute each
HEADER = "| what | compared with, ms | ours, ms | ratio | at least | floor, ms | x floor | note |"


def measure(device: str, parts: list[str], repeats: int) -> Iterator[Row]:
    """The rows of some parts, as they are measured."""
    ceilings = measure_ceilings(torch.device(device))
    if "extraction" in parts:
        yield from extraction.rows(device, repeats, ceilings)
    if "pretraining" in parts:
        yield from pretraining.rows(device, repeats, ceilings)
    if "sampling" in parts:
        yield from sampling.rows(device, repeats)
    if "evaluation" in parts:
        yield from evaluation.rows(device, min(repeats, _EVALUATIONS))


def line(row: Row) -> str:
    """A row of the table; what is not known is a dash."""
    cells = [
        row.what,
        _number(row.plain_ms),
        _number(row.ours_ms),
        _number(row.ratio),
        _number(row.required),
        _number(row.floor_ms),
        _number(row.over_floor),
        row.note,
    ]
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def main(words: list[str]) -> None:
    """Measure what the words ask for, printing each row as soon as it is there."""
    given = dict(word.partition("=")[::2] for word in words)
    known = {"device": "cpu", "only": ",".join(PARTS), "repeats": "5", "out": ""}
    if unknown := set(given) - set(known):
        sys.exit(f"unknown setting {', '.join(unknown)}; there are {', '.join(known)}.")
    settings = known | given
    parts = settings["only"].split(",")
    if wrong := set(parts) - set(PARTS):
        sys.exit(f"there is no part {', '.join(wrong)}; choose from {', '.join(PARTS)}.")
    lines = [HEADER, "| --- " * 8 + "|"]
    print("\n".join(lines))
    for row in measure(settings["device"], parts, int(settings["repeats"])):
        lines.append(line(row))
        print(lines[-1], flush=True)
    if settings["out"]:
        Path(settings["out"]).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
