"""Hold tasks out of pretraining, then adapt to each with few episodes, beside a model from nothing.

``python scripts/held_out_tasks_study.py checkpoints/mt80/data runs/held --new runs/new/data --tasks
walker-run mw-push`` pretrains on all other tasks of the first store (``--pretrain`` before its
settings), cuts 5, 20 and 100 episodes of each task out of the store ``--new`` and as many as
``--test`` says to judge by, and has ``adapting_study.py`` compare ways on them; further words are
what that takes. ``--brute-force 20`` then adapts with 20 episodes from the embedding of every known
task, or of ``--starts`` of them, and says how good the automatic choice of a start was.
``--seeds 3`` does all of it three times, with other episodes, and prints means and standard errors.
It goes on where it stopped.
"""

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adapting_study
from multitask_study import mean_and_error

from pwm.cli.main import main as pwm
from pwm.core.suites import Suite
from pwm.data.copy_episodes import copy_episodes, copy_sources, new_store
from pwm.data.store import EpisodeStore
from pwm.models.world_model import load_world_model
from pwm.reporting.templating import markdown_table

Rows = list[list[str]]


def pretrained(data: str, out: Path, tasks: list[str], settings: str) -> Path:
    """A world model of all tasks of a store but some."""
    store = EpisodeStore.open(data)
    others = [name for name in store.suite.names if name not in tasks and store.count(name)]
    own = [f"data={data}", f"out={out}", "suite=[" + ",".join(others) + "]"]
    if code := pwm(["pretrain", *own, *shlex.split(settings)]):
        sys.exit(code)
    return out


def cut(
    store: EpisodeStore, task: str, run: Path, numbers: list[int], test: int, seed: int = 0
) -> None:
    """Stores of a task's episodes: nested ones of the numbers, and others to judge by."""
    order = np.random.default_rng(seed).permutation(store.count(task))
    if len(order) < max(numbers) + test:
        sys.exit(f"{store.path} has {len(order)} episodes of {task}, not {max(numbers) + test}.")
    parts = {str(n): order[test : test + n] for n in numbers} | {"test": order[:test]}
    for name, chosen in parts.items():
        out = run / name / "data"
        if not out.exists():
            with new_store(str(out), Suite(task, (store.suite[task],))) as part:
                copy_sources(part, store)
                copy_episodes(part, store, task, np.sort(chosen))


def brute_force(task: str, run: Path, number: int, most: int | None, words: list[str]) -> list[str]:
    """A row: losses after adapting from the automatic, best and worst start, and its rank."""
    chosen = adapting_study.chosen_start(run / str(number) / "full", task)
    known = load_world_model(Path(words[words.index("--checkpoint") + 1])).suite.names
    others = np.random.default_rng(0).permutation([name for name in known if name != chosen])
    losses = {}
    for start in (chosen, *others[:most].tolist()):
        own = run / "starts" / start
        (own / str(number)).mkdir(parents=True, exist_ok=True)
        for name in (str(number), "test"):
            if not (own / name / "data").exists():
                (own / name).mkdir(exist_ok=True)
                (own / name / "data").symlink_to((run / name / "data").resolve())
        given = [task, str(own), f"embedding_of={start}", *words]
        given += ["--episodes", str(number), "--ways", "full"]
        losses[start] = float(adapting_study.main(given)[1][2])
    order = sorted(losses, key=lambda name: losses[name])
    middle = float(np.median(list(losses.values())))
    shown = [f"{name} {losses[name]:.3f}" for name in (chosen, order[0], order[-1])]
    return [task, *shown, f"{middle:.3f}", f"{order.index(chosen) + 1} of {len(order)}"]


def of_seed(given: argparse.Namespace, words: list[str], seed: int) -> tuple[Rows, Rows]:
    """Rows with a header of how well each way does, and of the starts tried, of one seed."""
    out = given.out / f"seed_{seed}"
    pretrain = f"{given.pretrain} seed={seed}"
    model = pretrained(given.data, out / "world_model", given.tasks, pretrain)
    words = ["--checkpoint", str(model), f"seed={seed}", *words]
    scored = ["--extract", given.extract] if given.extract is not None else []
    store = EpisodeStore.open(given.new)
    rows: Rows = []
    starts: Rows = [["task", "automatic start", "best", "worst", "median", "rank"]]
    for task in given.tasks:
        run = out / task
        cut(store, task, run, given.episodes, given.test, seed)
        numbers = [str(n) for n in given.episodes]
        own = [task, str(run), *words, *scored, "--episodes", *numbers, "--ways", *given.ways]
        header, *found = adapting_study.main(own)
        rows = rows or [["task", *header]]
        rows += [[task, *row] for row in found]
        if given.brute_force is not None:
            starts.append(brute_force(task, run, given.brute_force, given.starts, words))
    return rows, starts


def over_seeds(tables: list[Rows]) -> Rows:
    """One table of several with the same first three columns: means and standard errors."""
    header, *rows = tables[0]
    merged = [header]
    for number, row in enumerate(rows, 1):
        columns = zip(*(table[number][3:] for table in tables), strict=True)
        shown = [mean_and_error(tuple(map(float, values)), 3) for values in columns]
        merged.append([*row[:3], *shown])
    return merged


def main(arguments: list[str] | None = None) -> None:
    """Print the tables, and write them to ``table.md``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="an episode store of the tasks to pretrain on")
    parser.add_argument("out", type=Path)
    parser.add_argument("--new", required=True, help="an episode store of the tasks held out")
    parser.add_argument("--tasks", nargs="+", required=True, help="to hold out")
    parser.add_argument("--pretrain", default="", help="settings of pwm pretrain, in one word")
    parser.add_argument("--episodes", nargs="+", type=int, default=[5, 20, 100])
    parser.add_argument("--test", type=int, default=10, help="episodes to judge by")
    parser.add_argument("--ways", nargs="+", default=["scratch", "full"])
    parser.add_argument("--brute-force", type=int, metavar="EPISODES")
    parser.add_argument("--starts", type=int, help="others to try, drawn at random; else all")
    parser.add_argument("--extract", help="settings of pwm extract, in one word")
    parser.add_argument("--seeds", type=int, default=1)
    given, words = parser.parse_known_args(arguments)
    tables: list[Rows] = []
    of_starts = text = ""
    for seed in range(given.seeds):
        rows, starts = of_seed(given, words, seed)
        tables.append(rows)
        if starts[1:]:
            of_starts += f"\n\nseed {seed}\n\n" + markdown_table(starts)
        text = markdown_table(over_seeds(tables)) + of_starts
        (given.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
