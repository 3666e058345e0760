"""The exceptions that are shown to a user as a single sentence, without a traceback."""

from __future__ import annotations

import errno
import os
import traceback
from pathlib import Path


class PwmError(Exception):
    """A mistake or fault that the user can act on.

    The message has what was wrong, what was expected and what to do, in a sentence or two. The
    command line prints it and exits with code 1; library callers see an ordinary exception.
    """


class SimulatorError(PwmError):
    """A simulator failed, which it may not do again when the episode is run anew."""


def what_was_raised(error: BaseException) -> str:
    """The kind and text of an exception of other people's code, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f", {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory")  # what torch says, on a CPU and a GPU


def explain_fault(error: Exception) -> str | None:
    """One sentence for what the operating system refused: room, memory, a file; else None."""
    if isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY):
        return (
            "there is not enough memory for this; use a smaller batch_size, model or pool, or "
            "fewer tasks or environments at a time."
        )
    if not isinstance(error, OSError):
        return None
    where = error.filename if error.filename is not None else "a file, or what it prints"
    if error.errno in _FULL:
        return explain_unwritten(where, error)
    return f"cannot use {where} ({error.strerror or error}); check that it is there and yours."


def explain_unwritten(where: str | os.PathLike[str], error: OSError) -> str:
    """One sentence for a file that could not be written, on a full disk for example."""
    remedy = "give a directory that you may write to"
    if error.errno in _FULL:
        remedy = "free some space there, and give the same command again to go on"
    return (
        f"cannot write {where} ({error.strerror or error}): {remedy}; what was there before is "
        "whole."
    )
