"""Compare ways from a world model of many tasks to one of them, over several seeds, in one table.

``python scripts/finetuning_study.py runs/mt30/data runs/tuned steps=200 --base runs/uniform --tasks
walker-run cup-catch`` fine-tunes ``runs/uniform/seed_0``, ``seed_1``, ... for each of the tasks in
every way, with equally many updates of equally many windows, and reads what is written of the
task's held-out episodes: the numbers of ``multitask_study.py``. ``longer`` spends the updates of
each task on a model of all. Further words are settings of ``pwm pretrain`` for all;
``--extract extract=small_data`` adds the mean score of extracted policies. It goes on where it
stopped.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from extracted_scores import extracted_scores
from multitask_study import Row, measured, table

from pwm.cli.main import main as pwm
from pwm.core.errors import PwmError
from pwm.data.store import EpisodeStore
from pwm.runtime.run_dir import read_run

NONE, LONGER, LORA = "none", "longer", "lora"
WAYS = (NONE, LONGER, "full", "diminish", "switch", "adaptive", LORA)


def words(way: str, tasks: list[str]) -> list[str]:
    """The settings of a way that fine-tunes for some tasks in one run."""
    if way == LONGER:
        return []
    target = "target=[" + ",".join(tasks) + "]"
    return [f"finetune={way}", target, *(["finetuning.per_task=true"] if way == LORA else [])]


def runs(way: str, tasks: list[str]) -> list[list[str]]:
    """Which tasks are fine-tuned for together: ``lora`` has changes for each in one run."""
    return [tasks] if way in (LONGER, LORA) else [[task] for task in tasks]


def fine_tuned(given: argparse.Namespace, way: str, seed: int) -> tuple[dict[str, Path], float]:
    """The world model of each task, made if it is not there yet, and seconds that all took."""
    base = given.base / f"seed_{seed}"
    if way == NONE:
        return dict.fromkeys(given.tasks, base), 0.0
    seconds = 0.0
    models: dict[str, Path] = {}
    for tasks in runs(way, given.tasks):
        name = tasks[0] if len(tasks) == 1 < len(given.tasks) else "all"
        out = given.out / way / f"seed_{seed}" / name
        own = [f"init={base}", f"data={given.data}", f"out={out}", f"seed={seed}"]
        if code := pwm(["pretrain", *given.settings, *own, *words(way, tasks)]):
            sys.exit(code)
        seconds += float(read_run(out).get("seconds") or np.nan)
        models |= dict.fromkeys(tasks, out)
    return models, seconds


def errors(models: dict[str, Path]) -> dict[str, Any]:
    """A diagnostics.json of the tasks, each by its own world model."""
    found = {path: json.loads((path / "diagnostics.json").read_bytes()) for path in models.values()}
    return {"tasks": {task: found[path]["tasks"][task] for task, path in models.items()}}


def score(given: argparse.Namespace, way: str, seed: int, models: dict[str, Path]) -> float:
    """The mean over tasks of extracted policies' scores."""
    scores: dict[str, float] = {}
    for path in dict.fromkeys(models.values()):
        tasks = [task for task, own in models.items() if own == path]
        out = given.out / way / f"seed_{seed}" / "scores" / ("all" if tasks[1:] else tasks[0])
        settings = f"tasks=[{','.join(tasks)}] {given.extract}"
        scores |= extracted_scores(path, given.data, out, settings, given.episodes, seed)
    return float(np.mean(list(scores.values())))


def main(arguments: list[str] | None = None) -> None:
    """Print the table, and write it to ``table.md``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="an episode store")
    parser.add_argument("out", type=Path)
    parser.add_argument("settings", nargs="*", help="of pwm pretrain, for all")
    parser.add_argument("--base", type=Path, required=True, help="has a world model per seed")
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--extract", help="settings of pwm extract, in one word")
    parser.add_argument("--episodes", type=int, default=10, help="per task, of an evaluation")
    given = parser.parse_intermixed_args(arguments)
    try:
        known = EpisodeStore.open(given.data).suite.names
    except PwmError as error:
        parser.error(str(error))
    if unknown := [name for name in given.tasks if name not in known]:
        parser.error(
            f"{given.data} has no tasks {', '.join(unknown)}; settings are given before --tasks."
        )
    found: dict[str, list[Row]] = {way: [] for way in given.ways}
    scores: dict[str, list[float]] = {way: [] for way in given.ways}
    for seed in range(given.seeds):  # a table of fewer seeds is there before one of more
        for way in given.ways:
            models, seconds = fine_tuned(given, way, seed)
            found[way].append((*measured(errors(models)), seconds))
            if given.extract is not None:
                scores[way].append(score(given, way, seed, models))
    text = table(found, None if given.extract is None else scores)
    (given.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
