"""Work out what pretraining on many GPUs can do: ``python scripts/scaling_table.py``.

Prints a Markdown table. Operations and bytes are counted from our code, on shapes alone; the
ceilings below are a vendor's figures, and nothing in the table is measured.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from roofline import model_on_meta, pretraining_cost, trained_numbers

from pwm.core.suites import get_suite
from pwm.data.episode import row_dtype

MODELS = ("48M", "317M", "1B")
WINDOWS, HORIZON = 1024, 16
OVER_FLOOR = 2.5  # on two CPU cores an update takes 2 to 3 times the floor
PEAK = 989e12  # operations a second in bfloat16, dense: NVIDIA's data sheet of the H100 SXM
MEMORY = 3.35e12  # bytes a second: the same
NVLINK = 450e9  # bytes a second a GPU sends within a node: the same, 900 GB/s in both directions
PORT = 50e9  # bytes a second of one 400 Gb/s InfiniBand port
NODE = 8  # GPUs
HEADER = (
    "model", "GPUs", "ports a node", "windows an update", "floor, ms", "update, ms",
    "gradients, GB", "exchange, ms", "updates/s", "efficiency", "from the store, MB/s",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Some GPUs, and the slowest link that gradients cross between them.

    Attributes:
        link: bytes a second that all of a node's ports, or its NVLink, carry in one direction.
    """

    gpus: int
    ports: int | None
    link: float


PLACES = (
    Place(1, None, float("inf")),
    Place(NODE, None, NVLINK),
    Place(64, NODE, min(NVLINK, NODE * PORT)),
    Place(64, 1, PORT),
)


def exchange_ms(gradient_bytes: float, place: Place) -> float:
    """The least time to average gradients around rings, which use all ports of a node together."""
    return 1e3 * 2 * (place.gpus - 1) / place.gpus * gradient_bytes / place.link


@cache
def window_bytes() -> float:
    """Of a window in a store of MT80, the mean over tasks."""
    suite = get_suite("mt80")
    return (HORIZON + 1) * sum(row_dtype(task).itemsize for task in suite) / len(suite)


def table() -> list[str]:
    """The lines of the Markdown table."""
    lines = ["| " + " | ".join(HEADER) + " |", "| --- " * len(HEADER) + "|"]
    for name in MODELS:
        floor = pretraining_cost(name, WINDOWS, HORIZON, q_and_prior=True).floor_ms(PEAK, MEMORY)
        update = OVER_FLOOR * floor
        gradients = 4 * trained_numbers(model_on_meta(name, q_and_prior=True))
        for place in PLACES:
            exchange = exchange_ms(gradients, place)
            rate = 1e3 / (update + exchange)
            windows = WINDOWS * place.gpus
            cells = [
                name, str(place.gpus), "-" if place.ports is None else str(place.ports),
                f"{windows:,}", f"{floor:.1f}", f"{update:.0f}", f"{gradients / 1e9:.2f}",
                f"{exchange:.1f}", f"{rate:.1f}", f"{100 * update / (update + exchange):.0f} %",
                f"{1e-6 * rate * windows * window_bytes():,.0f}",
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
