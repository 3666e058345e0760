"""What the machine is, whether what the project needs is there, and what the device can do."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict

import torch
from gpu.facts import DEVICE, TINY, claim, part, say

PARTS = ("versions", "imports", "ceilings")
_IMPORTS = (
    "pwm.pretraining.pretrain",
    "pwm.extraction.extract",
    "pwm.evaluation.mppi",
    "pwm.cli.main",
    "benchmarks.extraction",
    "benchmarks.pretraining",
)


def check(wanted: Sequence[str]) -> None:
    """Say some of PARTS."""
    if "versions" in wanted:
        _versions()
    if "imports" in wanted:
        for module in _IMPORTS:
            with part(f"import {module}"):
                importlib.import_module(module)
    if "ceilings" in wanted:
        from roofline import measure_ceilings

        from pwm.runtime.acceleration import Acceleration, Accelerator

        device = torch.device(DEVICE)
        found = Acceleration("always", "float32").prepare(device)
        claim("fast code can be built", TINY or found != Accelerator(device), found=str(found))
        if not TINY:
            say("ceilings", asdict(measure_ceilings(device)))


def _versions() -> None:
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {"cuda": torch.version.cuda or "none", "cores": str(os.cpu_count())}
    versions["cxx"] = shutil.which("g++") or shutil.which("gcc") or "none"
    try:
        versions["triton"] = importlib.import_module("triton").__version__
    except ImportError:
        versions["triton"] = "none"
    if DEVICE == "cuda":
        versions["gpu"] = torch.cuda.get_device_name()
        versions["free_gb"] = f"{torch.cuda.mem_get_info()[0] / 1e9:.1f}"
    say("versions", versions)
