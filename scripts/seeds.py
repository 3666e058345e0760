"""Run a recipe over several seeds and print one Markdown table of normalized scores.

``python scripts/seeds.py --recipe quick --seeds 5 --out runs/quick_seeds`` goes on where it
stopped: a seed whose results are there is not run again.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pwm.cli.main import main as pwm

_COLUMNS = {"random": "random", "bc": "BC, all data", "bc_best": "BC, best tenth"}


def run_seeds(recipe: str, seeds: int, out: Path) -> list[dict[str, Any]]:
    """The content of results.json of every seed, with the seconds it took."""
    found = []
    for seed in range(seeds):
        run = out / f"seed_{seed}"
        if not (run / "timing.json").is_file():
            code = pwm(["quickstart", f"recipe={recipe}", f"seed={seed}", f"out={run}"])
            if code:
                sys.exit(code)
        results = json.loads((run / "results.json").read_text())
        results["seconds"] = json.loads((run / "timing.json").read_text())["total"]
        found.append(results)
    return found


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: a row a task and one for the mean, a column a seed, then means over seeds."""
    seeds = [f"seed {i}" for i in range(len(results))]
    header = ["task", *seeds, "mean", *_COLUMNS.values(), "data mean"]
    lines = [_row(header), _row(["---"] * len(header))]
    for name in results[0]["tasks"]:
        scores = [r["tasks"][name]["normalized_score"] for r in results]
        others = [
            np.mean([r["baselines"][m]["tasks"][name]["normalized_score"] for r in results])
            for m in (*_COLUMNS, "data_mean")
        ]
        lines.append(_row([name, *map(_fixed, [*scores, np.mean(scores), *others])]))
    means = [r["mean_normalized_score"] for r in results]
    others = [
        np.mean([r["baselines"][m]["mean_normalized_score"] for r in results])
        for m in (*_COLUMNS, "data_mean")
    ]
    lines.append(_row(["**mean**", *map(_fixed, [*means, np.mean(means), *others])]))
    seconds = ", ".join(f"{r['seconds']:.0f}" for r in results)
    return "\n".join([*lines, "", f"Seconds a seed: {seconds}."])


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _fixed(value: float) -> str:
    return f"{value:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/quick_seeds"))
    arguments = parser.parse_args()
    text = table(run_seeds(arguments.recipe, arguments.seeds, arguments.out))
    (arguments.out / "table.md").write_text(text + "\n")
    print(text)
