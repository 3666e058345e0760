"""Prove or disprove on a GPU what is claimed of it, and measure it: ``scripts/gpu_proof.py OUT``.

Every check is a process of its own with a time limit, in the order of what it is worth. OUT gets
results.json, always up to date, table.md and log.txt. ``--jobs 8`` runs checks of correctness side
by side; what is timed runs alone. Names of checks, with or without parts
(``speed:48Mx80,5Mx1``), run these alone, in that order; ``proof`` stands for all that is no timing,
``timing`` for the rest, and ``--list`` shows them.

On a machine that lacks Python packages: ``--wheels DIR`` fetches them here, and ``--install DIR``
uses them there. CHECK_DEVICE=cpu CHECK_TINY=1 rehearses without a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from gpu import table, wheels
from gpu.driver import Check, Driver

ROOT = Path(__file__).resolve().parent.parent

# Where each is: module, function, and the module's name for its parts, if it has any.
FUNCTIONS: dict[str, tuple[str, str, str | None]] = {
    "env": ("gpu.environment", "check", "PARTS"),
    "parity_extract": ("gpu.parity_extraction", "check", "PARTS"),
    "parity_pretrain": ("gpu.parity_pretraining", "check", "PARTS"),
    "parity_planner": ("gpu.parity_planner", "check", None),
    "extract": ("gpu.commands", "extract", None),
    "pretrain": ("gpu.commands", "pretrain", None),
    "agents": ("gpu.agents", "check", None),
    "tests": ("gpu.commands", "tests", "gpu_tests"),
    "speed": ("gpu.speed", "check", "PARTS"),
    "windows": ("gpu.speed", "windows", "WINDOWS"),
    "locomotion": ("gpu.locomotion", "check", "PARTS"),
    "ranks": ("gpu.commands", "ranks", "RANKS"),
}
MOST = {"env": 90, "windows": 60}  # seconds; the others have 240
ALONE = ("speed", "agents", "windows", "ranks", "locomotion")
ORDER = (
    "parity_extract:float32",
    "parity_pretrain:decoding,float32",
    "parity_extract:bfloat16",
    "parity_pretrain:bfloat16",
    "parity_pretrain:replays",
    "extract",
    "pretrain",
    "speed:48Mx80",
    "speed:48Mx1,5Mx1",
    "speed:pretrain,pretrain_q",
    "speed:48Mx27,5Mx80",
    "parity_planner",
    "speed:planner",
    "agents",
    "locomotion",
    "tests",
    "env",
    "speed:planner_float32,plain",
    "windows",
    "ranks",
)


def chosen(names: Sequence[str]) -> list[Check]:
    """The checks of these names, or all."""
    timed = [name for name in ORDER if name.partition(":")[0] in ALONE]
    sets = {
        "proof": [name for name in ORDER if name not in timed],
        "timing": timed,
        "all": ORDER,
    }
    checks = []
    for name in (one for given in names or ["all"] for one in sets.get(given, [given])):
        kind = name.partition(":")[0]
        if kind not in FUNCTIONS:
            known = ", ".join([*sets, *FUNCTIONS])
            sys.exit(f"there is no check {kind}; choose from {known}.")
        most = MOST.get(kind, 240)
        checks.append(Check(name, most, least=min(30, most / 2), alone=kind in ALONE))
    return checks


def environment(jobs: int, site: Path | None) -> dict[str, str]:
    """Of the checks: a cache of compiled kernels that they share, and a share of the cores."""
    threads = max(1, (os.cpu_count() or 1) // max(jobs, 1))
    found = {
        "TRITON_CACHE_DIR": str(Path(tempfile.gettempdir()) / "pwm-triton"),
        "OMP_NUM_THREADS": str(threads),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "PYTHONUNBUFFERED": "1",
    }
    found |= os.environ
    paths = [site, ROOT, os.environ.get("PYTHONPATH")]
    found["PYTHONPATH"] = os.pathsep.join(str(path) for path in paths if path)
    return found


def gpu_name() -> str:
    """Of the GPUs here, as their driver tells it."""
    words = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return "none"


def be(name: str) -> None:
    """Be one check; ends the process at once, whatever compile workers are still there."""
    code = 1
    try:
        _call(*name.partition(":")[::2])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _call(kind: str, given: str) -> None:
    module, function, parts = FUNCTIONS[kind]
    found = importlib.import_module(module)
    if parts is None:
        return getattr(found, function)()
    known = getattr(found, parts)
    known = known() if callable(known) else known
    wanted = given.split(",") if given else list(known)
    if unknown := set(wanted) - set(known):
        sys.exit(f"{kind} has no part {', '.join(unknown)}; it has {', '.join(known)}.")
    return getattr(found, function)(wanted)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command was given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="?", default=Path("runs/gpu_proof"))
    parser.add_argument("checks", nargs="*", help="names, all by default")
    parser.add_argument("--jobs", type=int, default=1, help="checks side by side")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for all")
    parser.add_argument("--list", action="store_true", help="show the checks")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="fetch wheels, and end")
    parser.add_argument("--python", default="3.12", help="version that the wheels are for")
    parser.add_argument("--install", type=Path, metavar="DIR", help="use these wheels")
    parser.add_argument("--check", metavar="NAME", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main() -> int:
    """Run checks, or be one."""
    given = arguments()
    if given.check:
        be(given.check)
    if given.wheels:
        wheels.fetch(given.wheels, given.python)
        return 0
    checks = chosen(given.checks)
    if given.list:
        print(*(check.name for check in checks), sep="\n")
        return 0
    site = None
    if given.install:
        site = Path(tempfile.mkdtemp(prefix="pwm-site-"))
        wheels.install(given.install, site)
    driver = Driver(
        given.out,
        lambda check: [sys.executable, "-u", __file__, "--check", check.name],
        given.jobs,
        given.budget,
        environment(given.jobs, site),
        lambda line: print(line, flush=True),
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the driver tidies up
    try:
        return driver.run(checks)
    finally:
        text = table.of(driver.results, gpu_name())
        (given.out / "table.md").write_text(text)
        print(text)


if __name__ == "__main__":
    sys.exit(main())
