"""Training checkpoints that all ranks write together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pwm.core.files import make_directory
from pwm.runtime.checkpoint import clear_step, commit_shards, delete_old_steps, step_name
from pwm.runtime.distributed import Ranks
from pwm.runtime.shards import write_shards


def save_sharded_step(
    directory: Path,
    kind: str,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    meta: Mapping[str, Any],
    keep_last: int,
    ranks: Ranks,
) -> None:
    """As `checkpoint.save_step`, by all ranks: each writes the parts of tensors that it holds.

    The main rank commits when all are on the disk, so there is at every moment the checkpoint of
    before or the new one.
    """
    newest = directory / step_name(step)
    with ranks.same_fate():
        if ranks.main:
            clear_step(newest)
            make_directory(newest)
    with ranks.same_fate():
        mine = write_shards(newest, tensors)
    files = {name: digest for part in ranks.collect(mine) for name, digest in part.items()}
    with ranks.same_fate():
        if ranks.main:
            commit_shards(newest, kind, files, {"step": step, **meta})
            delete_old_steps(directory, newest, keep_last)
