"""Compare settings of extraction on one world model: variants x seeds, one Markdown table.

``python scripts/study.py scripts/studies/critic_schedule.yaml --run runs/mixed10`` extracts the
study's tasks with each variant and seed from the run's world model and data, evaluates the
policies on the same episodes, and prints normalized scores. It goes on where it stopped.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pwm.cli import main as pwm


def run_study(study: dict[str, Any], run: Path, out: Path, seeds: int) -> dict[str, list[Any]]:
    """Scores by task and seconds of extraction, for each seed of each variant."""
    found: dict[str, list[Any]] = {name: [] for name in study["variants"]}
    for seed in range(seeds):  # a table of fewer seeds is there before one of more
        for name, overrides in study["variants"].items():
            directory = out / name.replace(" ", "_") / f"seed_{seed}"
            if not (directory / "results.json").is_file():
                _run(directory, study, run, seed, shlex.split(overrides))
            results = json.loads((directory / "results.json").read_text())
            scores = {t: r["normalized_score"] for t, r in results["tasks"].items()}
            seconds = json.loads((directory / "seconds.json").read_text())
            found[name].append({"scores": scores, "seconds": seconds})
    return found


def _run(
    directory: Path, study: dict[str, Any], run: Path, seed: int, overrides: list[str]
) -> None:
    tasks = "tasks=[" + ",".join(study["tasks"]) + "]"
    given = [f"checkpoint={run}/world_model", f"data={run}/data", f"seed={seed}"]
    policies = directory / "policies"
    start = time.perf_counter()
    _call("extract", tasks, *given, f"out={policies}", *shlex.split(study["base"]), *overrides)
    seconds = time.perf_counter() - start
    (directory / "seconds.json").write_text(json.dumps(seconds))
    _call("evaluate", f"policy={policies}", f"out={directory}", "baselines=[]", "episodes=10")


def _call(*words: str) -> None:
    code = pwm(list(words))
    if code:
        sys.exit(code)


def table(found: dict[str, list[Any]]) -> str:
    """Markdown: a row a task, a column a variant; mean over seeds, +- the standard error."""
    names = list(found)
    tasks = list(found[names[0]][0]["scores"])
    lines = [_row(["task", *names]), _row(["---"] * (len(names) + 1))]
    for task in tasks:
        per_seed = [[run["scores"][task] for run in found[name]] for name in names]
        lines.append(_row([task, *map(_mean, per_seed)]))
    means = [[np.mean(list(run["scores"].values())) for run in found[name]] for name in names]
    lines.append(_row(["**mean**", *map(_mean, means)]))
    seconds = [f"{np.median([run['seconds'] for run in found[name]]):.0f}" for name in names]
    return "\n".join([*lines, _row(["seconds of extraction", *seconds])])


def _mean(values: list[Any]) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):.1f} ± {error:.1f}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="a run with world_model/ and data/")
    parser.add_argument("--out", type=Path, help="default: RUN/studies/<name of the study>")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    out = arguments.out or arguments.run / "studies" / arguments.study.stem
    study = yaml.safe_load(arguments.study.read_text())
    text = table(run_study(study, arguments.run, out, arguments.seeds))
    (out / "table.md").write_text(text + "\n")
    print(text)
