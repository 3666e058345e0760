"""Versions, and whether what is installed is what pwm says it works with."""

from __future__ import annotations

import platform
import sys
import tomllib
from collections.abc import Iterable, Sequence
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pwm import __version__
from pwm.core.errors import what_was_raised
from pwm.core.versions import git_revision
from pwm.doctor.section import Section

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "pwm-worldmodels"
_FOR_DEVELOPERS = ("dev", "docs")
_SHOWN = ("torch", "numpy", "gymnasium")  # of what every installation has


def software() -> Section:
    """Python, operating system, pwm and the packages that it uses."""
    section = Section()
    section.ask("pwm", _pwm)
    section.ask("python", lambda: f"{platform.python_version()} ({sys.implementation.name})")
    section.ask("system", _system)
    section.broken += _broken_torch()
    needed = requirements()
    section.ask("packages", partial(_packages, section, needed.pop("")))
    for extra, of_extra in needed.items():
        section.ask(f"[{extra}]", partial(_extra, section, extra, of_extra))
    return section


def _pwm() -> str:
    revision = git_revision()
    return f"{__version__}, checkout at {revision}" if revision else __version__


def _system() -> str:
    name = f"{platform.system()} {platform.release()} {platform.machine()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {name}"
    except (OSError, KeyError):
        return name


def _broken_torch() -> list[str]:
    try:
        torch = import_module("torch")
        assert float(torch.ones(2, 2).mm(torch.ones(2, 2)).sum()) == 8.0
    except Exception as error:  # an ImportError, or what a library of its raises
        return [f"torch cannot compute here ({what_was_raised(error)}); install it again."]
    return []


def _packages(section: Section, needed: Sequence[Requirement]) -> str:
    """The versions of the main packages; tells of all that are missing or not as needed."""
    section.broken += _faults(needed, DISTRIBUTION)
    return ", ".join(f"{name} {version}" for name in _SHOWN if (version := _version(name)))


def _extra(section: Section, extra: str, needed: Sequence[Requirement]) -> str:
    versions = {r.name: _version(r.name) for r in needed}
    missing = [name for name, version in versions.items() if version is None]
    if len(missing) == len(versions):
        return "not installed"
    if extra == "sim":  # with other versions every reset fails
        there = [r for r in needed if r.name not in missing]
        section.broken += _faults(there, f"{DISTRIBUTION}[{extra}]")
    present = [f"{name} {version}" for name, version in versions.items() if version]
    return ", ".join([*present, *(f"no {name}" for name in missing)])


def _faults(needed: Iterable[Requirement], install: str) -> list[str]:
    """A sentence for each package that is not there in a version that pwm works with."""
    found = []
    for requirement in needed:
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            has = f"{requirement.name} {version} is" if version else f"{requirement.name} is not"
            wanted = f"{requirement.name}{requirement.specifier}"
            found.append(f"{has} installed, and pwm needs {wanted}; pip install '{install}'.")
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requirements() -> dict[str, list[Requirement]]:
    """What pwm needs under ``""``, and what each extra for users adds under its name.

    A checkout's pyproject.toml says it, elsewhere what pip noted when it installed pwm.
    """
    from packaging.requirements import Requirement

    file = Path(__file__).parents[2] / "pyproject.toml"
    texts = _of_project(file) if file.is_file() else _as_installed()
    return {
        extra: [r for r in map(Requirement, listed) if r.name != DISTRIBUTION]
        for extra, listed in texts.items()
        if extra not in _FOR_DEVELOPERS
    }


def _of_project(file: Path) -> dict[str, list[str]]:
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def _as_installed() -> dict[str, list[str]]:
    from packaging.requirements import Requirement

    extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    found: dict[str, list[str]] = {name: [] for name in ("", *extras)}
    for text in metadata.requires(DISTRIBUTION) or []:
        marker = Requirement(text).marker
        if marker is None or marker.evaluate({"extra": ""}):
            found[""].append(text)
            continue
        for extra in extras:
            if marker.evaluate({"extra": extra}):
                found[extra].append(text)
    return found
