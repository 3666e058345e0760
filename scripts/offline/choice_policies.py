"""Policies of very different worth from the same data: what measures of worth are compared on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from offline.data import copy_episodes

from pwm.cli.commands import COMMANDS
from pwm.cli.main import config_directory
from pwm.cli.overrides import Schema
from pwm.core.layout import MANIFEST_NAME
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore
from pwm.extraction.behavior_cloning import CloningConfig, clone
from pwm.extraction.config import ExtractConfig
from pwm.extraction.task_group import Group
from pwm.models.world_model import load_world_model
from pwm.runtime.checkpoint import Checkpoint, is_checkpoint

Variants = Mapping[str, tuple[str, tuple[int, ...]]]
"""By name, further settings and numbers of iterations."""

SHARES = {"all": 1.0, "best half": 0.5, "best tenth": 0.1, "worst half": 0.5}
UPDATES = (150, 600, 2500)

_OFFLINE = (
    "extract=offline learner.bc.warmup_steps=300 learner.q.warmup_steps=300 learner.iterations=200 "
    "learner.batch_size=64 learner.q.batch_size=128"
)
_PLAIN = "extract=standard learner.iterations=60 learner.batch_size=64"
EXTRACTIONS = {
    _OFFLINE: {
        "free": ("learner.prior.weight=1e-4 learner.prior.target=null", (0, 100, 200)),
        "held": ("learner.prior.target=0.01", (150,)),
        "loose": ("learner.prior.target=0.1", (150,)),
    },
    _PLAIN: {"plain": ("", (20, 60))},
}
"""By settings of ``pwm extract``: variants of its iterations, with the numbers of them after which
policies are kept. What comes before iterations is done once."""


@dataclass(frozen=True)
class Source:
    """Data of one kind, and what was learned from them.

    Attributes:
        kind: replay, medium or mixed.
        data: the store of all tasks.
        world_model: pretrained on it.
        out: gets a directory of policies for each name.
    """

    kind: str
    data: Path
    world_model: Path
    out: Path

    @property
    def tasks(self) -> list[str]:
        """The tasks' names."""
        return EpisodeStore.open(self.data).suite.names


def make_policies(source: Source) -> Iterator[str]:
    """Make what is not there yet; the names of what was made."""
    for share, updates in ((s, u) for s in SHARES for u in UPDATES):
        name = f"clone of {share}, {updates} updates"
        if not _has(source, name):
            _clone(source, share, updates, name)
            yield name
    for words, variants in EXTRACTIONS.items():
        names = [_named(method, stop) for method, (_, stops) in variants.items() for stop in stops]
        if not all(_has(source, name) for name in names):
            _extract(source, words, variants)
            yield ", ".join(names)


def _named(method: str, stop: int) -> str:
    return f"{method}, {stop} iterations"


def _has(source: Source, name: str) -> bool:
    return all(is_checkpoint(source.out / name / task) for task in source.tasks)


def _clone(source: Source, share: str, updates: int, name: str) -> None:
    store = EpisodeStore.open(source.data)
    if share == "worst half":
        store = _worst_half(store, source.out.parent / f"{source.out.name}-worst-half")
    config = CloningConfig(updates=updates)
    for task, policy in clone(store, store.suite.tasks, _kept(share), config, seed=0).items():
        policy.save(source.out / name / task, {"share": share, "updates": updates})


def _kept(share: str) -> float:
    return 1.0 if share == "worst half" else SHARES[share]


def _worst_half(store: EpisodeStore, path: Path) -> EpisodeStore:
    """A store of the half of each task's episodes that has the lowest returns."""
    if not (path / MANIFEST_NAME).is_file():
        with EpisodeStore.create(path, store.suite) as worst:
            for task in store.suite.names:
                order = np.argsort(store.episodes(task)["return"], kind="stable")
                chosen = sorted(order[: len(order) // 2].tolist())
                copy_episodes(worst, task, [(store, chosen)], "worst-half")
    return EpisodeStore.open(path)


def _extract(source: Source, words: str, variants: Variants) -> None:
    """Extract by each variant, keeping the policies after some numbers of iterations."""
    begun: Checkpoint | None = None
    for method, (own_words, stops) in variants.items():
        group = _group(source, f"{words} {own_words}")
        warmup = group.config.learner.warmup_steps
        if begun is None:
            for step in range(warmup):
                group.step(step)
            begun = Checkpoint(source.out, copy.deepcopy(group.tensors()), group.meta())
        else:
            group.load(begun)
        for iteration in range(max(stops) + 1):
            if iteration in stops:
                group.save_policies(source.out / _named(method, iteration))
            if iteration < max(stops):
                group.step(warmup + iteration)


def _group(source: Source, words: str) -> Group:
    schema = Schema("extract", ExtractConfig, config_directory(), COMMANDS["extract"].example)
    places = [f"data={source.data}", f"checkpoint={source.world_model}", f"out={source.out}"]
    config = schema.composed([*places, "device=cpu", *words.split()])
    model = load_world_model(config.checkpoint, torch.device("cpu"))
    store = EpisodeStore.open(source.data)
    tasks = [model.suite[name] for name in source.tasks]
    return Group(model, store, tasks, config, BadData(), {}, [])
