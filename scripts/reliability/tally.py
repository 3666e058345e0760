"""What came of trying damaged files."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Tally:
    """Outcomes of mutations of one kind of file.

    Attributes:
        tried: mutations in all.
        read: those that were read, with the content of the undamaged file.
        refused: those that were refused with one sentence.
        failures: a line for every other outcome: a traceback, a hang, other data, executed code.
    """

    tried: int = 0
    read: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
