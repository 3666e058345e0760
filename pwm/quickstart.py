"""The whole pipeline in one command: collect, pretrain, extract, evaluate, report."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from pwm.collect import CollectConfig, collect
from pwm.evaluate import EvaluateConfig, evaluate
from pwm.extract import ExtractConfig, extract
from pwm.files import write_atomically
from pwm.pretrain import PretrainConfig, pretrain
from pwm.progress import console
from pwm.report import report


@dataclass
class QuickstartConfig:
    """Settings of ``pwm quickstart``: one block a stage, each that of the stage's own command.

    Attributes:
        out: the run directory; the store, the world model, the policies, results.json and
            report.html go there.
        seed: of every stage.
        device: of pretraining and extraction.
    """

    out: str = MISSING
    seed: int = 0
    device: str = "auto"
    collect: CollectConfig = field(default_factory=lambda: CollectConfig(out=MISSING))
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


def quickstart(config: QuickstartConfig) -> Path:
    """Collect, pretrain, extract, evaluate and report, each stage where it last stopped.

    Returns:
        The path of the HTML report.

    Raises:
        PwmError, Interrupted: as the stages do.
    """
    for later in (config.pretrain, config.extract, config.evaluate):
        later.validate()  # now rather than after the stages before it
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
        stage()
        seconds[name] = round(time.time() - begun, 1)
    seconds["total"] = round(time.time() - started, 1)
    write_atomically(out / "timing.json", json.dumps(seconds, indent=1).encode())
    page = report(out)
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    console.print(f"Time: {spent}.")
    console.print(f"Report: {page}", soft_wrap=True)
    return page
