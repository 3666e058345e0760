"""The whole pipeline in one command: collect, pretrain, extract, evaluate, picture and report."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.progress import console, never_silent
from pwm.core.settings import Choices, block_types, require_inputs
from pwm.core.suites import task_names
from pwm.core.validation import error_prefix, require_valid, require_writable
from pwm.evaluation.evaluate import EvaluateConfig, evaluate
from pwm.evaluation.played_choice import extract
from pwm.evaluation.scores import EXTRACTED
from pwm.evaluation.videos import require_frames
from pwm.extraction.config import ExtractConfig
from pwm.pretraining.config import PretrainConfig, require_horizons_fit
from pwm.pretraining.pretrain import pretrain
from pwm.reporting.html_page import report
from pwm.reporting.policies_picture import policies_picture
from pwm.simulation.collect import collect
from pwm.simulation.collect_config import CollectConfig, collected_suite


@dataclass
class QuickstartConfig:
    """Settings of ``pwm quickstart``: one block a stage, each that of the stage's own command.

    Attributes:
        out: the run directory; the store, the world model, the policies, results.json,
            policies.png and report.html go there.
        seed: of every stage.
        device: of pretraining and extraction.
    """

    presets: ClassVar[Choices] = {"recipe": "quick"}

    out: str = MISSING
    seed: int = 0
    device: str = "auto"
    collect: CollectConfig = field(default_factory=lambda: CollectConfig(out=MISSING))
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def validate(self) -> None:
        """Raise PwmError for what any stage could not work with, before the first one begins."""
        require_writable(self.out)
        stages = {name: getattr(self, name) for name in block_types(QuickstartConfig)}
        for name, stage in stages.items():
            require_valid(name, stage)
        outputs = {stage.out for name, stage in stages.items() if name != "evaluate"}
        if len(outputs) < 3:
            raise PwmError("two stages have the same out=; give each its own directory.")
        for name, stage in stages.items():
            error_prefix(name, require_inputs, stage, outputs)
        self._check_tasks()

    def _check_tasks(self) -> None:
        """Compare what is asked of later stages with the tasks that are collected for them."""
        suite = collected_suite(self.collect)
        if self.pretrain.data == self.collect.out and self.pretrain.init is None:
            error_prefix("pretrain", require_horizons_fit, self.pretrain, suite)
        for name, stage, source in (
            ("extract", self.extract, self.collect.out == self.extract.data),
            ("evaluate", self.evaluate, self.evaluate.policy == self.extract.out),
        ):
            if stage.tasks is not None and source:
                for task in task_names(stage.tasks):
                    error_prefix(f"{name}.tasks", suite.id, task)
        if self.evaluate.video or self.evaluate.strip:
            error_prefix("evaluate", require_frames, suite)


def quickstart(config: QuickstartConfig) -> Path:
    """Collect, pretrain, extract, evaluate and report, each stage where it last stopped.

    Returns:
        The path of the HTML report.

    Raises:
        PwmError, Interrupted: as the stages do.
    """
    config.validate()
    out = Path(config.out)
    started = time.time()
    seconds: dict[str, float] = {}
    stages = {
        "collect": lambda: collect(config.collect),
        "pretrain": lambda: pretrain(config.pretrain),
        "extract": lambda: extract(config.extract),
        "evaluate": lambda: evaluate(config.evaluate),
    }
    for number, (name, stage) in enumerate(stages.items(), 1):
        console.rule(f"{number}/{len(stages)} {name}", align="left")
        begun = time.time()
        with never_silent(name):
            stage()
        seconds[name] = round(time.time() - begun, 1)
    picture = None
    if config.evaluate.method == EXTRACTED:
        with never_silent("picture"):
            picture = policies_picture(out, Path(config.evaluate.policy))
    with never_silent("report"):
        page = report(out)
    seconds["total"] = round(time.time() - started, 1)
    write_atomically(out / "timing.json", json.dumps(seconds, indent=1).encode())
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    console.print(f"Time: {spent}.")
    if picture is not None:
        console.print(f"What the policies do: {picture}", soft_wrap=True)
    console.print(f"Report: {page}", soft_wrap=True)
    return page
