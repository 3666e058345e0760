"""The versions that a result depends on, for the records beside it."""

from __future__ import annotations

import functools
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "pwm",
    "torch",
    "numpy",
    "tensordict",
    "gymnasium",
    "dm-control",
    "metaworld",
    "mujoco",
)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the packages that results depend on, of those installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """The revision of the checkout this code runs from, ``-dirty`` if changed; else None."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
