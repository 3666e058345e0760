"""Steps of growth: commands one after another, in the place of rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pwm.core.errors import PwmError
from pwm.core.settings import require_inputs
from pwm.core.validation import nearest, with_changes

ROUND = "{round}"
"""In a path of a round: its number."""

COLLECT, GROW, REPORT = "collect", "grow", "report"
STAGES = ("pretrain", "extract", "evaluate")
STEPS = (COLLECT, *STAGES, GROW, REPORT)


@dataclass(frozen=True)
class Step:
    """A command with its settings."""

    command: str
    config: Any

    @property
    def makes(self) -> str:
        """The path of what it makes."""
        return str(self.config.results if self.command == REPORT else self.config.out)

    def require_possible(self, before: Sequence[str]) -> None:
        """Raise PwmError for settings that cannot work, before the first step begins.

        Args:
            before: what earlier steps make.
        """
        if self.command == GROW:
            self.config.require_possible_rounds(before)
            return
        if self.command != REPORT:
            self.config.validate()
        require_inputs(self.config, before)
        if ROUND in self.makes:
            raise PwmError(f"{self.command} is not of a round; give it out= without {ROUND}.")


def planned_step(number: int, step: Any, blocks: Mapping[str, Any]) -> Step:
    """A step with all of its settings.

    Args:
        number: its position.
        step: what the user wrote: one command, and in which settings it differs from its block.
        blocks: the settings of each command.

    Raises:
        PwmError: for a step that is no command with settings.
    """
    if not isinstance(step, Mapping) or len(step) != 1:
        raise PwmError(f"steps[{number}]={step} must be one command, such as {{collect: {{}}}}.")
    ((command, changes),) = step.items()
    if command not in blocks:
        hint = nearest(str(command), STEPS) or ";"
        raise PwmError(f"steps[{number}]: unknown {command}{hint} it is one of {', '.join(STEPS)}.")
    try:
        return Step(command, with_changes(blocks[command], changes or {}))
    except PwmError as error:
        raise PwmError(f"steps[{number}]: {error}") from error
