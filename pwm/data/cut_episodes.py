"""Recorded episodes that are too short for what their task's score is a score of."""

from __future__ import annotations

import numpy as np

from pwm.core.suites import Task
from pwm.data.store import EpisodeStore

_ENDED_THEMSELVES = "pwm collect"  # what made them plays until the environment's own end


def cut_episodes(store: EpisodeStore, task: Task) -> np.ndarray:
    """Which of a task's episodes, (episodes,) bool, seem to be pieces of longer ones.

    Those are shorter than the task's episodes and ended neither by termination nor, where success
    is the score, in success. The return of such a piece is not comparable with a whole episode's. A
    piece that is marked as one has the whole's return and does not count, nor do episodes of a
    source that is described with ``whole_episodes: true``.

    Raises:
        DataError: if the episodes' table or rows cannot be read.
    """
    table = store.episodes(task.name)
    whole = [
        source_id
        for source_id, source in enumerate(store.sources.values())
        if source.get("whole_episodes")
        or source.get("made_by") == _ENDED_THEMSELVES
        or "pieces_of_episodes" in source  # which says of which tasks
    ]
    cut = table["length"].astype(np.int64) - 1 < task.episode_length
    cut &= table["is_piece"] == 0
    if store.suite[task.name].episode_length >= task.episode_length:
        cut &= ~np.isin(table["source"], whole)
    if task.scored_by_success:
        cut &= table["success_last"] == 0
    for index in np.flatnonzero(cut):
        cut[index] = not _terminated(store, task.name, table[index])
    return cut


def _terminated(store: EpisodeStore, task: str, entry: np.void) -> bool:
    last = int(entry["start"]) + int(entry["length"]) - 1
    return bool(store.rows(task, last, last + 1)["terminated"][0])
