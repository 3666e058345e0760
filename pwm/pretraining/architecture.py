"""What a world model that is trained on some data is to have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pwm.core.errors import PwmError
from pwm.core.suites import Suite
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore
from pwm.data.terminations import terminating_tasks
from pwm.models.world_model import KIND, WorldModel, is_episodic
from pwm.runtime.checkpoint import DamagedCheckpointError, read_meta
from pwm.runtime.training_checkpoints import list_steps

EPISODIC = ("auto", "always", "never")


def is_to_be_episodic(
    wanted: str,
    given: WorldModel | None,
    out: Path,
    data: tuple[EpisodeStore, Suite, BadData, Sequence[str] | None],
) -> bool:
    """Whether a world model has a termination head.

    Args:
        wanted: one of `EPISODIC`.
        given: the model that training begins with, which has one or has not.
        out: the run's directory; a run that goes on has what it had.
        data: see :func:`pwm.data.terminations.terminating_tasks`.

    Raises:
        PwmError: if one is wanted always, and the given model has none.
    """
    if given is not None:
        if wanted == "always" and not given.episodic:
            raise PwmError(
                "episodic=always, and the world model of init= has no termination head; leave it "
                "out, or begin without init=."
            )
        return given.episodic
    if wanted != "auto":
        return wanted == "always"
    for path in reversed(list_steps(out / "checkpoints")):
        try:
            return is_episodic(read_meta(path, KIND))
        except DamagedCheckpointError:  # passed over when the run goes on, too
            continue
    return bool(terminating_tasks(*data))
