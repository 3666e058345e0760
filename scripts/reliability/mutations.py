"""Damaged and edited files: each must be read correctly or refused with one sentence.

``python scripts/reliability/mutations.py`` damages copies of genuine files at random, reads them,
and prints a Markdown table. A failure is anything else than the right content or one sentence: an
other exception, other content, a reader that does not end, that takes more memory than MEMORY, or
that starts a process, connects anywhere or looks up a name that a pickle gives. It exits with 1 if
there is one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import damage
import mutate_store
import numpy as np
import torch
import yaml
from judging import Tally, judged
from samples import ROOT, TASKS, make_results, make_samples

from pwm.core.errors import PwmError
from pwm.core.suites import SUITES, get_task
from pwm.evaluation.scores import Results
from pwm.interop.tdmpc2_checkpoints import published_key, read_published
from pwm.interop.tdmpc2_data import Chunk
from pwm.models.actor_critic import load_critic
from pwm.models.policy import load_policy
from pwm.models.world_model import KIND, load_world_model
from pwm.reporting.html_page import report
from pwm.reporting.templating import markdown_table
from pwm.runtime.checkpoint import load_checkpoint
from pwm.runtime.metrics import MetricsLogger
from pwm.runtime.run_dir import open_run

PUBLISHED = ROOT / "tests" / "data"


@dataclass(frozen=True)
class Target:
    """A kind of file, how to damage it, and how to read it.

    Attributes:
        name: for the table.
        path: a genuine file or directory.
        damage: changes a copy of it.
        read: gives its content.
        expected: what a damaged copy holds by another program's reading; None where only the
            genuine content is right, since the format has checksums.
    """

    name: str
    path: Path
    damage: Callable[[Path, Random], None]
    read: Callable[[Path], Any]
    expected: Callable[[Path], Any] | None = None


def try_target(target: Target, count: int, seed: int) -> Tally:
    """Damage and read ``count`` copies of a target's file."""
    tally, random = Tally(), Random(f"{target.name} {seed}")
    try:
        genuine = plain(target.read(target.path))
    except PwmError:
        genuine = None  # a kind that is always refused
    with tempfile.TemporaryDirectory() as directory:
        while tally.tried < count:
            copy = Path(directory) / target.path.name
            _copy(target.path, copy)
            target.damage(copy, random)
            if damage.same(target.path, copy):
                continue
            right = genuine
            if target.expected is not None:
                with suppress(Exception):  # where the other program fails, only the genuine is
                    right = plain(target.expected(copy))
            outcome = judged(lambda: plain(target.read(copy)), lambda found: found == right)  # noqa: B023
            tally.add(target.name, outcome)
    return tally


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        shutil.copyfile(source, target)
    else:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)


def plain(content: Any) -> Any:
    """Content that ``==`` compares: tensors as type, shape and bytes."""
    if isinstance(content, torch.Tensor):
        flat = content.detach().contiguous().reshape(-1)
        return str(content.dtype), tuple(content.shape), flat.view(torch.uint8).numpy().tobytes()
    if isinstance(content, np.ndarray):
        return str(content.dtype), content.shape, content.tobytes()
    if isinstance(content, Mapping):
        return {key: plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    return content


# How each kind of file is read


def _training_checkpoint(path: Path) -> Any:
    found = load_checkpoint(path, KIND)
    return found.tensors, found.meta


def _world_model(path: Path) -> Any:
    model = load_world_model(path)
    return model.state_dict(), model.suite.names


def _policy(path: Path) -> Any:
    policy, critic = load_policy(path), load_critic(path)
    facts = (policy.task.name, critic.discount, critic.reward_units, critic.values.scale)
    return policy.state_dict(), critic.values.state_dict(), facts


def _chunk(path: Path) -> Any:
    chunk = Chunk(path, SUITES["mt30"])
    for _ in chunk.file.verify():
        pass
    ids = chunk.task_ids()
    blocks = [chunk.read(SUITES["mt30"].tasks[i], np.flatnonzero(ids == i)) for i in sorted({*ids})]
    return [(b.obs, b.action, b.reward, b.terminated, b.faults) for b in blocks]


def _published(path: Path) -> Any:
    return read_published(path, SUITES["mt30"]).state


def _published_by_torch(path: Path) -> Any:
    """The same weights as torch reads them, under the names of this project."""
    state = torch.load(path, weights_only=True)["model"]
    names = _published(PUBLISHED / "tdmpc2_mt30_tiny_old.pt")
    return {name: state[published_key(name, "tdmpc2-old")].float() for name in names}


def _task(path: Path) -> Any:
    task = get_task(str(path))
    return {"name": task.name, "env_id": task.env_id, "obs_dim": task.obs_dim}


def _task_by_yaml(path: Path) -> Any:
    loaded = yaml.safe_load(path.read_bytes())
    return {key: loaded[key] for key in ("name", "env_id", "obs_dim")}


def _results(path: Path) -> Any:
    report(path.parent)
    found = Results.load(path)
    return found.suite, found.episodes, list(found.policy.tasks)


def _results_by_json(path: Path) -> Any:
    loaded = json.loads(path.read_bytes())
    return str(loaded["suite"]), int(loaded["episodes"]), list(loaded["tasks"])


def _page(path: Path) -> Any:
    return report(path).name


@dataclass
class _Settings:
    """The config of a made-up run."""

    resume: str = "auto"
    seed: int = 3
    steps: int = 20


def _resumed(path: Path) -> Any:
    """Going on with a run: its settings are compared and its metrics cut to step 5."""
    with open_run(path, "test", _Settings()), closing(MetricsLogger(path, step=5)):
        return "goes on"


def _make_run(path: Path) -> Path:
    with open_run(path, "test", _Settings()), closing(MetricsLogger(path)) as logger:
        for step in range(1, 9):
            logger.log(step, {"loss": 1 / step})
    shutil.rmtree(path / "tensorboard")
    return path


def _make_curves(run: Path, model: Path) -> None:
    """What a report shows beside results: a run's records and metrics of few names."""
    curves = {"world_model": "loss", f"policies/{TASKS[0]}": f"{TASKS[0]}/imagined_return"}
    for folder, name in curves.items():
        (run / folder).mkdir(parents=True)
        lines = [json.dumps({"step": step, name: 1 / step}) + "\n" for step in range(1, 5)]
        (run / folder / "metrics.jsonl").write_text("".join(lines))
    for name in ("run.json", "config.yaml", "diagnostics.json"):
        shutil.copyfile(model / name, run / "world_model" / name)


def targets(directory: Path) -> list[Target]:
    """Every kind of file, with genuine ones made in a directory."""
    made = make_samples(directory / "samples")
    results = directory / "results"
    make_results(results)
    checkpoint = next((made["model"] / "checkpoints").glob("step_*"))
    policy = made["policies"] / "pendulum-swingup"
    chunk, old, new = (
        PUBLISHED / f"tdmpc2_mt30_{n}.pt" for n in ("chunk_2023", "tiny_old", "tiny_new")
    )
    legacy = directory / "legacy.pt"
    torch.save(torch.load(old, weights_only=True), legacy, _use_new_zipfile_serialization=False)
    whole = directory / "whole"
    shutil.copytree(results, whole)
    _make_curves(whole, made["model"])
    records = _make_run(directory / "records")
    page = directory / "page" / "results.json"
    page.parent.mkdir()
    shutil.copyfile(results / "results.json", page)
    bytes_, text = damage.damage_file, damage.damage_text_file
    return [
        Target("training checkpoint", checkpoint, bytes_, _training_checkpoint),
        Target("world model", checkpoint, bytes_, _world_model),
        Target(
            "world model, edited with its checksum", checkpoint, damage.edit_index, _world_model
        ),
        Target("policy and critic", policy, bytes_, _policy),
        Target("policy and critic, edited with its checksum", policy, damage.edit_index, _policy),
        Target("published data file", chunk, bytes_, _chunk),
        Target("published data file, edited pickle", chunk, damage.damage_member, _chunk),
        Target("published checkpoint, old layout", old, bytes_, _published),
        Target("published checkpoint, new layout", new, bytes_, _published),
        Target(
            "published checkpoint, edited pickle",
            old,
            damage.damage_member,
            _published,
            _published_by_torch,
        ),
        Target("checkpoint of torch before 1.6", legacy, bytes_, _published),
        Target("task file (YAML)", made["task"], text, _task, _task_by_yaml),
        Target("results.json", page, text, _results, _results_by_json),
        Target("run for a report", whole, bytes_, _page),
        Target("run to go on with", records, bytes_, _resumed),
    ]


def print_table(tallies: Mapping[str, Tally]) -> None:
    """Print one row per kind of file, and one for all."""
    counts = {n: (t.tried, t.read, t.refused, len(t.failures)) for n, t in tallies.items()}
    counts["**all**"] = tuple(map(sum, zip(*counts.values(), strict=True)))
    head = ["file", "tried", "read correctly", "refused with a sentence", "failures"]
    print(markdown_table([head, *([name, *map(str, row)] for name, row in counts.items())]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=50, help="damaged copies of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose name contains this")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as directory:
        tallies = {
            target.name: try_target(target, given.each, given.seed)
            for target in targets(Path(directory))
            if given.only in target.name
        }
        if given.only in "store":
            store = Path(directory) / "store"
            store.mkdir()
            tallies["episode store"] = mutate_store.run(store, 4 * given.each, given.seed)
    print_table(tallies)
    failures = [line for tally in tallies.values() for line in tally.failures]
    for line in failures:
        print(line, file=sys.stderr)
    sys.exit(bool(failures))
