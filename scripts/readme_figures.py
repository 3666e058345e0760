"""The README's two pictures, from the results page: ``python scripts/readme_figures.py``.

``docs/figures/policies.png`` shows frames of extracted policies, cut from the page's strips;
``docs/figures/scores.png`` their scores beside the published ones, read from the page's tables.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "mt80.md"
FIGURES = ROOT / "docs" / "figures"

FRAMES = {
    "walker-walk": (0, 2, 4, 6),
    "mw-hammer": (0, 3, 5, 7),
    "cheetah-run": (0, 2, 5, 7),
    "mw-drawer-open": (0, 3, 5, 7),
    "cup-catch": (0, 1, 2, 5),
    "mw-push-wall": (0, 3, 4, 7),
}
"""Which of a strip's eight frames are shown, from an episode's first to its last."""
STRIP_FRAMES = 8
GAP = 6
COLUMNS = 2

OURS = "extracted"
PWM = "PWM 48M, published"
BARS = {
    "data mean": ("training data, mean", "#d5dae1"),
    "BC, best 10 %": ("BC on the best 10 %", "#9fb0c3"),
    OURS: ("extracted, 1M model (ours)", "#d1495b"),
    PWM: ("PWM 48M, published", "#30638e"),
    "TD-MPC2 48M, published": ("TD-MPC2 48M, published", "#7fa8c9"),
}
DOMAINS = {"dm_control": "#e09f3e", "Meta-World": "#2a7f62"}


@dataclass(frozen=True)
class Table:
    """A Markdown table: the cells of its rows by the row's first cell and the column's head."""

    heads: list[str]
    rows: dict[str, dict[str, str]]

    @classmethod
    def below(cls, page: str, heading: str) -> Table:
        """The first table under a second-level heading."""
        section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        lines = [line for line in section.splitlines() if line.startswith("|")]
        cells = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
        heads, body = cells[0], cells[2:]
        return cls(heads, {row[0]: dict(zip(heads, row, strict=True)) for row in body})

    def number(self, row: str, column: str) -> float:
        """A cell's number."""
        return float(self.rows[row][column])


def policies(pictures: Path, table: Table) -> Image.Image:
    """Frames of one episode per task, two tasks side by side, each with its mean score."""
    strips = {task: Image.open(pictures / f"{task}.jpg") for task in FRAMES}
    first = next(iter(strips.values()))
    width, height = first.width // STRIP_FRAMES, first.height
    shown = len(next(iter(FRAMES.values())))
    block = shown * width
    rows = -(-len(FRAMES) // COLUMNS)
    size = (COLUMNS * block + (COLUMNS - 1) * GAP, rows * height + (rows - 1) * GAP)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture, "RGBA")
    font = ImageFont.truetype(Path(plt.__file__).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", 15)
    for i, (task, frames) in enumerate(FRAMES.items()):
        left, top = (i % COLUMNS) * (block + GAP), (i // COLUMNS) * (height + GAP)
        for j, frame in enumerate(frames):
            box = (frame * width, 0, (frame + 1) * width, height)
            picture.paste(strips[task].crop(box), (left + j * width, top))
        label = f"{task}  {table.number(task, OURS):.0f}"
        length = draw.textlength(label, font)
        draw.rectangle((left, top, left + length + 12, top + 22), fill=(0, 0, 0, 150))
        draw.text((left + 6, top + 2), label, fill="white", font=font)
    palette = picture.quantize(256, kmeans=3)
    return picture.quantize(256, palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def means(axes: Axes, table: Table) -> None:
    """Bars of the mean score over each suite."""
    parts = {"MT30 part": "MT30\ndm_control", "MT50 part": "MT50\nMeta-World", "MT80": "MT80\nall"}
    width = 0.84 / len(BARS)
    for i, (column, (label, color)) in enumerate(BARS.items()):
        places = [j + (i - (len(BARS) - 1) / 2) * width for j in range(len(parts))]
        heights = [table.number(part, column) for part in parts]
        tops = heights
        axes.bar(places, heights, width * 0.92, color=color, label=label)
        if column == OURS:
            spans = [[float(end) for end in table.rows[part]["95 %"].split(" to ")]
                     for part in parts]  # fmt: skip
            errors = [[h - low for h, (low, _) in zip(heights, spans, strict=True)],
                      [high - h for h, (_, high) in zip(heights, spans, strict=True)]]  # fmt: skip
            axes.errorbar(places, heights, errors, fmt="none", ecolor="black", lw=1, capsize=2)
            tops = [high for _, high in spans]
        for place, height, top in zip(places, heights, tops, strict=True):
            bold = "bold" if column == OURS else "normal"
            axes.text(place, top + 1.5, f"{height:.1f}", ha="center", fontsize=7.5, weight=bold)
    axes.set_xticks(range(len(parts)), list(parts.values()))
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("mean score")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8, frameon=False)


def every_task(axes: Axes, table: Table) -> None:
    """A point per task, our score over PWM's published one."""
    axes.plot([0, 100], [0, 100], color="#9aa3ad", lw=1, ls="--", zorder=1)
    tasks = [task for task in table.rows if "mean" not in task]
    for domain, color in DOMAINS.items():
        named = [t for t in tasks if t.startswith("mw-") == (domain == "Meta-World")]
        axes.scatter(
            [table.number(t, PWM) for t in named],
            [table.number(t, OURS) for t in named],
            s=26, color=color, alpha=0.75, lw=0, label=f"{domain} ({len(named)})", zorder=2,
        )  # fmt: skip
    axes.set_xlim(-3, 103)
    axes.set_ylim(-3, 103)
    axes.set_aspect("equal")
    axes.set_xlabel("PWM 48M, published")
    axes.set_ylabel("extracted, 1M model (ours)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8, frameon=False)


def scores(page: str, out: Path) -> None:
    """Draw both panels into one picture."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.6, 4.3), width_ratios=(1.55, 1), layout="constrained"
    )
    means(left, Table.below(page, "Summary"))
    every_task(right, Table.below(page, "Every task"))
    left.set_title("Mean over each suite", fontsize=10, loc="left")
    right.set_title("Every task of MT80", fontsize=10, loc="left")
    figure.savefig(out, dpi=130, metadata={"Software": None})
    plt.close(figure)


def main() -> int:
    """Make both pictures."""
    plt.switch_backend("agg")
    page = PAGE.read_text(encoding="utf-8")
    FIGURES.mkdir(exist_ok=True)
    picture = policies(PAGE.with_name("mt80_files"), Table.below(page, "Every task"))
    picture.save(FIGURES / "policies.png", optimize=True)
    scores(page, FIGURES / "scores.png")
    for name in ("policies.png", "scores.png"):
        path = FIGURES / name
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
