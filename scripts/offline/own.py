"""Our own methods: a world model of each kind of data and seed, and extraction from it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from offline import commands

from pwm.cli.commands import COMMANDS
from pwm.cli.main import config_directory
from pwm.cli.overrides import Schema
from pwm.core.fingerprints import fingerprint
from pwm.core.validation import from_plain
from pwm.extraction.config import ActorCriticConfig, ExtractConfig
from pwm.pretraining.config import PretrainConfig
from pwm.runtime.checkpoint import is_checkpoint
from pwm.runtime.metrics import read_metrics
from pwm.runtime.run_dir import read_config, read_run, resolved_config

_TYPES = {"extract": ExtractConfig, "pretrain": PretrainConfig}
_PLACES = ("out", "data", "checkpoint")
_RECORDED = ("imagined_return", "expected_score")


def settings_of(command: str, words: Sequence[str]) -> dict[str, Any]:
    """The settings, by dotted name, in which words differ from the defaults of a command's type.

    A setting that there was none of, and that is left at its default, so changes nothing.

    Raises:
        PwmError: for words that do not fit.
    """
    return dict(_settings_of(command, tuple(words)))


@lru_cache
def _settings_of(command: str, words: tuple[str, ...]) -> dict[str, Any]:
    schema = Schema(command, _TYPES[command], config_directory(), COMMANDS[command].example)
    schema.check(list(words))
    named = [f"{name}=none" for name in _PLACES if hasattr(schema.config_type, name)]
    given = _flat(asdict(schema.composed([*named, *words])))
    plain = _flat(resolved_config(schema.config_type))
    return {n: v for n, v in given.items() if n not in _PLACES and plain.get(n) != v}


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(settings, dict):
        return {prefix: settings}
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found


@dataclass(frozen=True)
class WorldModelRun:
    """The world model of a kind of data and a seed.

    Attributes:
        settings: of ``pwm pretrain``, in one line.
        out: of the benchmark.
        kind, seed: of the data, and its own.
        data_digest: of all tasks' data.
    """

    settings: str
    out: Path
    kind: str
    seed: int
    data_digest: str

    @cached_property
    def made_of(self) -> str:
        """A fingerprint of all that it depends on."""
        plain = settings_of("pretrain", shlex.split(self.settings))
        return fingerprint([plain, self.data_digest, self.seed])

    @property
    def directory(self) -> Path:
        """Its run."""
        name = f"{self.kind}-seed-{self.seed}-{self.made_of[:8]}"
        return self.out / "world_models" / name

    def make(self, data: Path) -> None:
        """Pretrain it if it is not there; goes on where it stopped."""
        if read_run(self.directory).get("finished"):
            return
        words = ["pretrain", f"data={data}", f"out={self.directory}", f"seed={self.seed}"]
        log = self.out / "logs" / f"world-model-{self.kind}-seed-{self.seed}.log"
        commands.pwm([*words, *shlex.split(self.settings)], log)

    @property
    def seconds(self) -> float:
        """Of its pretraining."""
        return float(read_run(self.directory).get("seconds") or 0.0)


@dataclass(frozen=True)
class Extraction:
    """One method's policies from a world model.

    Attributes:
        model: extracted from.
        directory: gets the policies.
        data: the store of all tasks.
        tasks: some of them.
        words: settings of ``pwm extract``.
        seed: of the extraction.
    """

    model: WorldModelRun
    directory: Path
    data: Path
    tasks: tuple[str, ...]
    words: list[str]
    seed: int

    def make(self, log: Path) -> None:
        """Extract the policies that are not there; goes on where it stopped."""
        if all(is_checkpoint(self.directory / task) for task in self.tasks):
            return
        words = [
            "extract", f"checkpoint={self.model.directory}", f"data={self.data}",
            f"out={self.directory}", f"seed={self.seed}", f"tasks=[{','.join(self.tasks)}]",
        ]  # fmt: skip
        commands.pwm([*words, *self.words], log)

    @property
    def updates(self) -> int:
        """Iterations, and the updates before them."""
        return from_plain(ActorCriticConfig, read_config(self.directory)["learner"]).steps

    @property
    def seconds(self) -> float:
        """Of the extraction of all policies that are there."""
        return float(read_run(self.directory).get("seconds") or 0.0)

    def recorded(self, task: str) -> dict[str, float]:
        """What its run last recorded of a task's policy, of `_RECORDED`."""
        found: dict[str, float] = {}
        for file in sorted(self.directory.rglob("metrics.jsonl")):
            for line in read_metrics(file):
                names = [name for name in _RECORDED if f"{task}/{name}" in line]
                found |= {name: line[f"{task}/{name}"] for name in names}
        return found
