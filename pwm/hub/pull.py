"""``pwm pull``: what ``pwm push`` put into a model repository, into a directory."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.files import fsync_directory, make_directory, unfinished_path, writing
from pwm.core.progress import console, never_silent
from pwm.core.validation import require_writable
from pwm.hub.contents import Contents, verified
from pwm.hub.push import require_repo
from pwm.hub.service import download


@dataclass
class PullConfig:
    """Settings of ``pwm pull``.

    Attributes:
        repo: the repository, ``user/name``.
        revision: a branch, tag or commit of it; the newest commit by default.
        out: the directory that gets it, which must not be there yet, or be empty.
    """

    repo: str = MISSING
    revision: str | None = None
    out: str = MISSING

    def validate(self) -> None:
        """Raise PwmError for what is no name of a repository, or a directory with files."""
        require_repo(self.repo)
        require_writable(self.out)
        out = Path(self.out)
        if out.is_dir() and any(out.iterdir()):
            raise PwmError(f"{out} is there already; give another out= or delete it.")


def pull(config: PullConfig) -> Path:
    """Fetch checkpoints from a model repository of the Hugging Face hub, and verify them.

    The directory appears when it is whole and every checksum was compared, or not at all.

    Returns:
        The directory.

    Raises:
        PwmError: for settings that do not fit, damaged files, or what the hub refuses.
    """
    config.validate()
    out = Path(config.out)
    unfinished = unfinished_path(out)
    make_directory(out.parent)
    with writing(unfinished):
        shutil.rmtree(unfinished, ignore_errors=True)  # of one that was killed here
        unfinished.mkdir()
    try:
        with never_silent("pull"):
            download(config.repo, config.revision, unfinished)
            shutil.rmtree(unfinished / ".cache", ignore_errors=True)  # of the hub's library
            held = verified(unfinished)
        with writing(out):
            os.replace(unfinished, out)
            fsync_directory(out.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    console.print(f"{_told(held)} of {config.repo} in {out}, whole.", soft_wrap=True)
    return out


def _told(held: Contents) -> str:
    parts = ["the world model"] if held.world_model else []
    if held.policies:
        parts.append(f"{len(held.tasks)} policies" if len(held.tasks) > 1 else "the policy")
    text = " and ".join(parts)
    return f"{text[:1].upper()}{text[1:]}"
