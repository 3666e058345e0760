"""The episode store that episodes are to be put into, which may be there already."""

from __future__ import annotations

from pathlib import Path

from pwm.core.errors import PwmError
from pwm.core.layout import MANIFEST_NAME
from pwm.core.suites import Suite
from pwm.data.store import EpisodeStore


def open_or_create(path: Path, suite: Suite) -> EpisodeStore:
    """Open a store for appending, or make one for these tasks.

    Raises:
        PwmError: if it was made for other tasks, or cannot be written.
    """
    if not (path / MANIFEST_NAME).exists():
        return EpisodeStore.create(path, suite)
    store = EpisodeStore.open(path, "a")
    for task in suite:
        if task.name not in store.suite or store.suite[task.name] != task:
            store.close()
            raise PwmError(
                f"{path} was made for suite '{store.suite.name}', whose tasks do not include "
                f"'{task.name}' as it is here; give another directory."
            )
    return store
