"""Install a wheel into an empty environment and run a small quickstart with nothing else there.

    python -m build
    python scripts/check_wheel.py dist/*.whl            # what it needs comes from the package index
    python scripts/check_wheel.py dist/*.whl --borrow   # from the environment that runs this

It shows what a checkout hides: files that the wheel lacks, and packages that it does not require.
With ``--borrow`` the second is not found out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

_QUICK = (
    "quickstart", "out=run", "device=cpu", "collect.suite=pendulum-swingup", "collect.episodes=6",
    "collect.workers=1", "pretrain.steps=20", "pretrain.batch_size=16",
    "extract.learner.iterations=4", "extract.learner.bc.warmup_steps=4",
    "extract.learner.batch_size=16", "evaluate.episodes=1", "evaluate.workers=1",
    "evaluate.baselines=[random]", "evaluate.video=0",
)  # fmt: skip
MADE = ("results.json", "report.html", "policies/pendulum-swingup/checkpoint.json")


def check(wheel: Path, directory: Path, borrow: bool) -> list[str]:
    """What is wrong with a wheel, one line each.

    Args:
        wheel: the file.
        directory: an empty one, for the environment and the run.
        borrow: take the packages that it needs from the environment that runs this.
    """
    home = directory / "environment"
    venv.create(home, with_pip=True)
    python, pwm = home / "bin" / "python", home / "bin" / "pwm"
    constraints = ["-c", str(ROOT / "constraints.txt")]
    what = ["--no-deps", str(wheel)] if borrow else [*constraints, f"{wheel}[sim]"]
    _run([python, "-m", "pip", "install", "--quiet", *what], directory)
    if borrow:
        site = _run([python, "-c", "import site; print(site.getsitepackages()[0])"], directory)
        Path(site, "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    where = _run([python, "-c", "import pwm; print(pwm.__file__)"], directory)
    if not Path(where).is_relative_to(home):
        return [f"pwm comes from {where}, not from the wheel"]
    print(_run([pwm, "--version"], directory))
    print(_run([pwm, "doctor"], directory))
    _run([pwm, *_QUICK], directory)
    return [
        f"the quickstart made no {name}"
        for name in MADE
        if not (directory / "run" / name).is_file()
    ]


def _run(command: Sequence[str | Path], directory: Path) -> str:
    """What a command prints; as a user's shell would start it, who has no checkout."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=directory, env=kept, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout.strip()


def main() -> int:
    """Check the wheel that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument(
        "--borrow", action="store_true", help="take the packages that it needs from here"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        wrong = check(given.wheel.resolve(), Path(directory), given.borrow)
    print("\n".join(wrong) or f"{given.wheel.name} is whole")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
