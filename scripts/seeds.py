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
from pwm.evaluation.statistics import iqm, iqm_interval
from pwm.reporting.templating import markdown_table

_COLUMNS = {
    "random": "random",
    "bc": "BC, all data",
    "bc_best": "BC, best tenth",
    "data_mean": "data mean",
}


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
    """Markdown: a row per task and one for the mean, a column per seed, then means over seeds.

    Below it the interquartile mean over seeds and tasks, with its stratified bootstrap interval.
    """
    seeds = [f"seed {i}" for i in range(len(results))]
    rows = [["task", *seeds, "mean", *_COLUMNS.values()]]
    scores = []
    for name in results[0]["tasks"]:
        scores.append([r["tasks"][name]["normalized_score"] for r in results])
        others = (
            [r["baselines"][method]["tasks"][name]["normalized_score"] for r in results]
            for method in _COLUMNS
        )
        rows.append([name, *_cells(scores[-1], others)])
    means = [r["mean_normalized_score"] for r in results]
    others = ([r["baselines"][m]["mean_normalized_score"] for r in results] for m in _COLUMNS)
    rows.append(["**mean**", *_cells(means, others)])
    by_seed = np.array(scores).T
    interval = iqm_interval(by_seed)
    spread = f", 95 % {interval[0]:.1f} to {interval[1]:.1f}" if interval else ""
    seconds = ", ".join(f"{r['seconds']:.0f}" for r in results)
    return (
        f"{markdown_table(rows)}\n\nInterquartile mean: {iqm(by_seed):.1f}{spread}.\n\n"
        f"Seconds per seed: {seconds}."
    )


def _cells(scores: list[float], others: Any) -> list[str]:
    values = [*scores, np.mean(scores), *(np.mean(other) for other in others)]
    return [f"{value:.1f}" for value in values]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/quick_seeds"))
    arguments = parser.parse_args()
    text = table(run_seeds(arguments.recipe, arguments.seeds, arguments.out))
    (arguments.out / "table.md").write_text(text + "\n")
    print(text)
