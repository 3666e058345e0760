"""``pwm doctor``: one screen about this machine and installation, to paste into an issue."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial

from pwm.core.errors import PwmError, what_was_raised
from pwm.core.validation import require_choice
from pwm.doctor.hardware import gpus, processor, space, threads
from pwm.doctor.section import Section
from pwm.doctor.simulators import begin_trials, rendering, simulators
from pwm.doctor.software import software

_WIDTH = 100
_NAME = 22  # columns


@dataclass
class DoctorConfig:
    """Settings of ``pwm doctor``.

    Attributes:
        format: ``text``, or ``json`` for programs.
    """

    format: str = "text"

    def validate(self) -> None:
        """Raise PwmError for a format that does not exist."""
        require_choice(self, "format", ("text", "json"))


@dataclass
class Examination:
    """What was found.

    Attributes:
        facts: text by section and name.
        warnings: sentences about what will be slow or fail, and why.
        broken: sentences about what does not work, without which nothing does.
    """

    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def add(self, title: str, probe: Callable[[], Section]) -> None:
        """Add a section; of one that fails, the reason in its place."""
        try:
            section = probe()
        except Exception as error:  # such as torch's that cannot be imported
            section = Section({"unknown": what_was_raised(error)})
        self.facts[title] = section.facts
        self.warnings += section.warnings
        self.broken += section.broken

    def text(self) -> str:
        """All of it, at most 100 columns wide."""
        lines = []
        for title, facts in self.facts.items():
            lines.append(title)
            for name, value in facts.items():
                lines += _wrapped(f"  {name:<{_NAME - 3}} {value}", _NAME)
        told = {"broken": self.broken, "what will be slow or fail, and why": self.warnings}
        for title, sentences in told.items():
            lines += [title] if sentences else []
            for sentence in sentences:
                lines += _wrapped(f"  - {_capitalized(sentence)}", 4)
        return "\n".join(lines)


def doctor(config: DoctorConfig) -> Examination:
    """Show versions, devices, rendering, threads, memory and disk, and what will be slow.

    Raises:
        PwmError: with a sentence for each fault without which nothing works.
    """
    config.validate()
    found = examine()
    if config.format == "json":
        print(json.dumps(asdict(found), indent=1))
    else:
        print(found.text())
    if found.broken:
        raise PwmError(" ".join(map(_capitalized, found.broken)))
    return found


def examine() -> Examination:
    """Look at everything; takes some seconds."""
    found = Examination()
    with begin_trials() as trials:
        found.add("software", software)
        found.add("processor", processor)
        found.add("threads", threads)
        found.add("gpu", gpus)
        found.add("simulators", partial(simulators, trials))
        found.add("rendering", partial(rendering, trials))
        found.add("space", space)
    return found


def _capitalized(sentence: str) -> str:
    return f"{sentence[:1].upper()}{sentence[1:]}"


def _wrapped(line: str, indent: int) -> list[str]:
    return textwrap.wrap(
        line, _WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
