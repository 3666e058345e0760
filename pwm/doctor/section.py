"""Facts of one kind, and the sentences that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pwm.core.errors import what_was_raised


@dataclass
class Section:
    """Facts of one kind.

    Attributes:
        facts: text by name, in the order in which they are shown.
        warnings: sentences about what will be slow or fail, and why.
        broken: sentences about what is missing or does not work, without which nothing does.
    """

    facts: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def ask(self, name: str, probe: Callable[[], str | None]) -> None:
        """Add a fact; of a probe that fails the reason, and nothing where it gives None."""
        try:
            found = probe()
        except Exception as error:  # of whatever kind: the other facts are wanted all the more
            found = f"unknown ({what_was_raised(error)})"
        if found is not None:
            self.facts[name] = found

    def warn(self, sentence: str | None) -> None:
        """Add a sentence about what will be slow or fail, where there is one."""
        if sentence is not None:
            self.warnings.append(sentence)


def gibibytes(bytes_: float) -> str:
    """An amount of memory as text."""
    return f"{bytes_ / 2**30:,.1f} GiB"


def shown(path: Path) -> str:
    """A path as text without the user's name: ``~`` for the home directory."""
    path = path.absolute()
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
