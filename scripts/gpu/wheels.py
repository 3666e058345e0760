"""Wheels of what the project needs and a machine with PyTorch may lack, to be carried there."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

CARRIED = ("omegaconf", "hydra-core", "gymnasium", "farama-notifications", "msgspec")
BUILT = ("antlr4-python3-runtime",)  # has no wheel in the index
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")


def commands(folder: Path, python: str, versions: Mapping[str, str]) -> list[list[str]]:
    """The words that fetch and build them for a version of Python such as 3.12."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    target = ["--python-version", python, "--implementation", "cp", *platforms]
    download = [*pip, "download", "--no-deps", "--only-binary=:all:", *target, "-d", str(folder)]
    build = [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder)]
    pinned = {name: f"{name}=={versions[name]}" for name in (*CARRIED, *BUILT)}
    return [
        [*download, *(pinned[name] for name in CARRIED)],
        [*build, *(pinned[name] for name in BUILT)],
    ]


def fetch(folder: Path, python: str) -> None:
    """Bring the wheels of the versions that are installed here into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*CARRIED, *BUILT):  # two versions of one would not install
        for old in folder.glob(f"{name.replace('-', '_')}-*.whl"):
            old.unlink()
    for words in commands(folder, python, {name: version(name) for name in (*CARRIED, *BUILT)}):
        subprocess.run(words, check=True)
    print(*sorted(path.name for path in folder.glob("*.whl")), sep="\n")


def install(folder: Path, site: Path) -> None:
    """Unpack a folder's wheels where no index can be reached."""
    words = ["install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--upgrade"]
    wheels = sorted(str(path) for path in folder.glob("*.whl"))
    pip = [sys.executable, "-m", "pip", *words, "--target", str(site), *wheels]
    if not wheels or subprocess.run(pip).returncode:
        sys.exit(
            f"the wheels in {folder} cannot be installed for {sys.executable}, Python "
            f"{platform.python_version()}; fetch them with --wheels {folder} --python VERSION."
        )
