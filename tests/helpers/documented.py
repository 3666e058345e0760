"""What the pages show to type: their fenced blocks and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

SHELL = ("", "sh", "console")


@dataclass
class Command:
    """A command as a page shows it, and the lines that the page shows below it."""

    line: str
    output: list[str] = field(default_factory=list)


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The language and the content of every fenced block."""
    return iter(re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page, re.DOTALL | re.MULTILINE))


def session(block: str) -> list[Command]:
    """The commands of a block in which they begin with a dollar."""
    found: list[Command] = []
    for line in _joined(block):
        if line.lstrip().startswith("$ "):
            found.append(Command(line.lstrip().removeprefix("$ ")))
        elif found:
            found[-1].output.append(line)
    return found


def pwm_lines(page: str) -> list[str]:
    """The lines of a page's shell blocks that call ``pwm``, without what stands before it."""
    lines = (
        line for language, block in blocks(page) if language in SHELL for line in _joined(block)
    )
    found = (re.match(r" *(?:\$ )?(?:\S*/)?(pwm [a-z].*)", line) for line in lines)
    return [match[1].split(" #")[0].rstrip() for match in found if match]


def _joined(block: str) -> list[str]:
    return re.sub(r"\\\n\s*", "", block).splitlines()
