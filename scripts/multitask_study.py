"""Compare ways of balancing tasks in pretraining, each over several seeds, in one Markdown table.

``python scripts/multitask_study.py runs/mt30/data runs/balance steps=20000`` pretrains a model for
every way and seed with equally many updates of equally large batches, and reads what is written of
held-out episodes: the R2 of rewards and the latent error at 16 steps, or as far as the windows go,
the mean over tasks and the worst task. Further words are settings of ``pwm pretrain`` for all. It
goes on where it stopped.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pwm.cli.main import main as pwm
from pwm.multitask.config import AGGREGATES
from pwm.reporting.templating import markdown_table
from pwm.runtime.run_dir import read_run

WAYS = {
    name: f"balance={name}"
    for name in ("uniform", "size", "uncertainty", "gradnorm", "dwa", "progress")
} | {name: f"aggregate={name}" for name in AGGREGATES if name != "mean"}
HEADER = (
    "way", "reward R2, mean", "reward R2, worst", "latent error, mean", "latent error, worst",
    "seconds",
)  # fmt: skip

Row = tuple[float, ...]


def measured(diagnostics: dict[str, Any]) -> Row:
    """The four numbers of a diagnostics.json, at the most steps that each task has.

    Tasks whose rewards do not vary have no R2 and are left out of it.
    """
    tasks = diagnostics["tasks"].values()

    def last(name: str) -> np.ndarray:
        found = [task[name][max(task[name], key=int)] for task in tasks]
        return np.array([value for value in found if value is not None])

    r2, error = last("reward_r2"), last("latent_error")
    return r2.mean(), r2.min(), error.mean(), error.max()


def run(data: str, out: Path, way: str, seed: int, words: list[str]) -> Row:
    """Pretrain one model if it is not there yet; its numbers and seconds."""
    directory = out / way / f"seed_{seed}"
    own = [f"data={data}", f"out={directory}", f"seed={seed}", WAYS[way]]
    code = pwm(["pretrain", *words, *own])
    if code:
        sys.exit(code)
    seconds = float(read_run(directory).get("seconds") or np.nan)
    return *measured(json.loads((directory / "diagnostics.json").read_text())), seconds


def table(found: dict[str, list[Row]]) -> str:
    """Markdown: a row per way; mean over seeds, +- the standard error."""
    rows = [list(HEADER)]
    for way, values in found.items():
        columns = list(zip(*values, strict=True))
        rows.append([way, *map(_shown, columns[:-1]), f"{np.median(columns[-1]):.0f}"])
    return markdown_table(rows)


def _shown(values: Row) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


def main(words: list[str] | None = None) -> None:
    """Print the table, and write it to ``table.md``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="an episode store")
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", nargs="*", help="of pwm pretrain, for all")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_intermixed_args(words)
    found: dict[str, list[Row]] = {way: [] for way in given.ways}
    for seed in range(given.seeds):  # a table of fewer seeds is there before one of more
        for way in given.ways:
            found[way].append(run(given.data, given.out, way, seed, given.settings))
    text = table(found)
    (given.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
