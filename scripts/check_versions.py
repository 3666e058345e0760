"""Whether one version is named everywhere: ``python scripts/check_versions.py [v0.1.0]``.

pyproject.toml, ``pwm.__version__``, CITATION.cff and the newest heading of CHANGELOG.md must agree,
and a tag, if one is given, must be that version after a ``v``. It needs nothing but Python, so that
a release can check it first.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

_PLACES = {
    "pwm/__init__.py": r'^__version__ = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
    "CHANGELOG.md": r"^## (\S+)",
}


def named_versions(root: Path = ROOT) -> dict[str, str]:
    """The version that each place names, ``none`` where it names none."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {"pyproject.toml": project["version"]}
    for place, pattern in _PLACES.items():
        match = re.search(pattern, (root / place).read_text(encoding="utf-8"), re.MULTILINE)
        found[place] = match[1] if match else "none"
    return found


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Say what each place names, and return 1 if they differ."""
    found = named_versions(root)
    if arguments:
        found[f"tag {arguments[0]}"] = arguments[0].removeprefix("v")
    for place, version in found.items():
        print(f"{version:<12} {place}")
    return int(len(set(found.values())) > 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
