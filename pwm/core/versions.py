"""The versions that a result depends on, for the records beside it."""

from __future__ import annotations

import functools
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from pwm import __version__

_SIMULATORS = ("gymnasium", "dm-control", "metaworld", "mujoco")
_PACKAGES = ("torch", "numpy", "tensordict", *_SIMULATORS)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the packages that results depend on, of those installed."""
    found = {"pwm": __version__}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@functools.cache
def git_revision() -> str | None:
    """The revision of the checkout this code was loaded from, ``-dirty`` if changed; else None."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        here, quiet = Path(__file__).parent, subprocess.DEVNULL
        found = subprocess.check_output(command, cwd=here, stderr=quiet, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.strip() or None
