"""Wheels of what the project needs and a machine with PyTorch may lack, to be carried there."""

from __future__ import annotations

import platform
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.metadata import distribution, version
from pathlib import Path

CARRIED = (
    "omegaconf", "hydra-core", "gymnasium", "farama-notifications", "msgspec",
    "mujoco", "dm-env", "dm-tree", "glfw",
)  # fmt: skip
BUILT = ("antlr4-python3-runtime",)  # has no wheel in the index
SLIMMED = {  # of what is installed here and is all Python: what is kept, and what of that is not
    "dm-control": (
        ("__init__.py", "_render/", "autowrap/", "mujoco/", "rl/", "suite/", "utils/"),
        ("suite/dog_assets/", "suite/all_domains.png", "mujoco/testing/"),
    ),
}
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


def slim(name: str, folder: Path) -> Path:
    """A wheel of an installed package with what SLIMMED keeps of it."""
    of, module = distribution(name), name.replace("-", "_")
    kept, dropped = (tuple(f"{module}/{part}" for part in parts) for parts in SLIMMED[name])
    facts = f"{module}-{of.version}.dist-info/"
    wheel = folder / f"{module}-{of.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in of.files or ():
            path, wanted = file.as_posix(), (*kept, facts)
            if path.startswith(wanted) and not path.startswith(dropped) and file.suffix != ".pyc":
                archive.write(str(file.locate()), path)
    return wheel


def fetch(folder: Path, python: str) -> None:
    """Bring the wheels of the versions that are installed here into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*CARRIED, *BUILT, *SLIMMED):  # two versions of one would not install
        for old in folder.glob(f"{name.replace('-', '_')}-*.whl"):
            old.unlink()
    for name in SLIMMED:
        slim(name, folder)
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
