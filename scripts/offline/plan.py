"""What a benchmark is made of: tasks, amounts of data, settings of the methods."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pwm.core.errors import PwmError
from pwm.core.suites import Suite, get_suite
from pwm.core.validation import from_plain, require_at_least, require_choice
from pwm.extraction.behavior_cloning import CloningConfig

KINDS = ("replay", "medium", "mixed")
CLONES = {"bc": 1.0, "bc_best": 0.1}
"""Behavior cloning, by the share of a task's episodes, the best, that is cloned."""
D3RLPY = ("td3bc", "iql", "rebrac")
BASELINES = (*CLONES, *D3RLPY)


@dataclass
class TaskData:
    """How many episodes of a task there are.

    Attributes:
        replay: of an agent's whole training, which are the kind ``replay``.
        medium: after which another agent, of the same seed, stops learning.
        fixed: of that one's policy then, which are the kind ``medium``; in ``mixed`` half of them,
            and as many of the first agent after its training.
    """

    replay: int
    medium: int
    fixed: int

    def validate(self) -> None:
        """Raise PwmError for numbers that make no data."""
        require_at_least(self, 1, "replay", "medium")
        require_at_least(self, 2, "fixed")


@dataclass
class Plan:
    """The content of a plan's file.

    Attributes:
        tasks: of the benchmark; one world model is pretrained on all of them.
        kinds: of data.
        seeds: of every method; data have one.
        episodes, first_seed: of an evaluation, per task, and of its first environment.
        points: how often a baseline is evaluated over its training; the last one counts.
        collect, pretrain: settings of ``pwm collect`` and ``pwm pretrain``.
        extract: settings of every ``pwm extract``, which those of a method follow.
        own: settings of our methods by name; others are presets, and the name chooses it.
        cloning: of behavior cloning.
        baselines: of d3rlpy's methods (:mod:`offline.d3rlpy_worker`).
    """

    tasks: dict[str, TaskData]
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    seeds: int = 3
    episodes: int = 10
    first_seed: int = 1000
    points: int = 5
    collect: str = "collect=sac_fast seed=1"
    pretrain: str = ""
    extract: str = ""
    own: dict[str, str] = field(default_factory=dict)
    cloning: CloningConfig = field(default_factory=CloningConfig)
    baselines: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Plan:
        """Raise PwmError unless the file describes a benchmark."""
        try:
            plan = from_plain(cls, yaml.safe_load(file.read_text()))
        except (OSError, yaml.YAMLError) as error:
            raise PwmError(f"plan={file} cannot be read ({error}); give a YAML file.") from error
        plan.validate()
        return plan

    def validate(self) -> None:
        """Raise PwmError for what cannot work."""
        require_at_least(self, 1, "seeds", "episodes", "points")
        require_kinds(self.kinds)
        if not self.tasks:
            raise PwmError("the plan has no tasks; give some, each with replay, medium and fixed.")
        for data in self.tasks.values():
            data.validate()
        self.cloning.validate()
        if missing := set(D3RLPY) - set(self.baselines):
            raise PwmError(f"the plan's baselines lack {', '.join(sorted(missing))}.")
        _ = self.suite

    @property
    def suite(self) -> Suite:
        """Its tasks."""
        return get_suite(list(self.tasks))

    @property
    def evaluation_seeds(self) -> list[int]:
        """Of the environments of an evaluation's episodes, the same for every method and task."""
        return [self.first_seed + i for i in range(self.episodes)]

    def own_words(self, method: str) -> list[str]:
        """The settings of ``pwm extract`` for one of our methods."""
        return shlex.split(f"{self.extract} {self.own.get(method, f'extract={method}')}")


def require_kinds(kinds: Sequence[str]) -> None:
    """Raise PwmError for a kind of data that there is none of."""
    for kind in kinds:
        require_choice(_Kind(kind), "kinds", KINDS)


@dataclass
class _Kind:
    kinds: str
