"""Compare adapting a world model to a new task with a model from nothing, on the same episodes.

``python scripts/adapting_study.py task.yaml run --checkpoint checkpoints/mt80/world_model`` reads
``run/5/data``, ``run/20/data``, ..., one store for each number of episodes, and judges every model
by the whole of ``run/test/data``: loss, latent error and R2 of rewards at 16 steps. A model from
nothing has the sizes of the checkpoint and as many updates as embedding and fine-tuning together.
Further words are settings of both commands. ``--extract extract=small_data`` also extracts a policy
of every model, from the same episodes, and adds its score. It goes on where it stopped.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from extracted_scores import extracted_scores

from pwm.adaptation.adapt import REPORT
from pwm.adaptation.errors import held_out_errors
from pwm.cli.main import main as pwm
from pwm.core.suites import get_suite
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import WindowSampler
from pwm.models.world_model import load_world_model
from pwm.pretraining.learner import LearnerConfig
from pwm.reporting.templating import markdown_table
from pwm.runtime.run_dir import read_run

WAYS = ("scratch", "none", "full", "diminish", "switch", "adaptive", "lora")
_WINDOWS = 512
_STEPS = 16


def errors(model: Path, task: str, data: Path) -> list[str]:
    """Loss, latent error and reward R2 of a world model, in all episodes of a store."""
    world_model = load_world_model(model)
    sampler = WindowSampler(
        EpisodeStore.open(data), _STEPS, _WINDOWS, 0, split="all", suite=world_model.suite,
        tasks=[task], memory=0,
    )  # fmt: skip
    found = held_out_errors(world_model, [sampler.batch(0)], LearnerConfig())[task]
    last = str(_STEPS)
    return [
        f"{x:.3f}" for x in (found["loss"], found["latent_error"][last], found["reward_r2"][last])
    ]


def words(way: str, task: str, store: Path, out: Path, given: argparse.Namespace) -> list[str]:
    """The command that makes a model."""
    common = [f"data={store}", f"out={out}", *given.settings]
    if way == "scratch":
        size = asdict(load_world_model(given.checkpoint).size)
        steps = f"steps={given.embedding_steps + given.steps}"
        return ["pretrain", *common, steps, *(f"model.{k}={v}" for k, v in size.items())]
    own = [f"task={task}", f"checkpoint={given.checkpoint}", f"finetune={way}"]
    own += [f"steps={given.steps}", f"embedding_steps={given.embedding_steps}"]
    own += [f"old_data={given.old_data}"] * bool(given.old_data)
    return ["adapt", *common, *own]


def chosen_start(model: Path, task: str) -> str:
    """The known task whose embedding a new one began with, by its loss."""
    ranking = json.loads((model / REPORT).read_bytes())["embeddings"][task]
    return str(ranking[0]["embedding_of"])


def row(number: int, way: str, task: str, given: argparse.Namespace) -> list[str]:
    """What comes of a way and a number of episodes, made if it is not there yet."""
    store, out = given.run / str(number) / "data", given.run / str(number) / way
    if code := pwm(words(way, given.task, store, out, given)):
        sys.exit(code)
    found = errors(out, task, given.run / "test" / "data")
    if given.extract is not None:
        settings = f"tasks=[{task}] {given.extract}"
        scores = extracted_scores(out, str(store), out / "score", settings, given.played)
        found.append(f"{scores[task]:.1f}")
    return [str(number), way, *found, f"{float(read_run(out).get('seconds') or 0):.0f}"]


def main(arguments: list[str] | None = None) -> list[list[str]]:
    """Print the table, and write it to ``table.md``; returns its rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task")
    parser.add_argument("run", type=Path)
    parser.add_argument("settings", nargs="*", help="of pwm adapt and pwm pretrain, for all")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--old-data", dest="old_data")
    parser.add_argument("--episodes", nargs="+", type=int, default=[5, 20])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--embedding-steps", type=int, default=300)
    parser.add_argument("--extract", help="settings of pwm extract, in one word")
    parser.add_argument("--played", type=int, default=10, help="episodes of an evaluation")
    given = parser.parse_intermixed_args(arguments)
    torch.set_num_threads(1)
    (task,) = get_suite(given.task).names
    scored = ["score"] * (given.extract is not None)
    rows = [["episodes", "way", "loss", "latent error", "reward R2", *scored, "seconds"]]
    for number in given.episodes:
        for way in given.ways:
            rows.append(row(number, way, task, given))
            (given.run / "table.md").write_text(markdown_table(rows) + "\n")
    print(markdown_table(rows))
    return rows


if __name__ == "__main__":
    main()
