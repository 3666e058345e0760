"""``pwm push``: a policy, policies, a world model or a bundle into a model repository."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.progress import console, never_silent
from pwm.core.settings import require_inputs, setting
from pwm.hub.card import card_page
from pwm.hub.contents import gather, verified
from pwm.hub.service import require_token, upload


@dataclass
class PushConfig:
    """Settings of ``pwm push``.

    Attributes:
        source: a policy, a directory of policies, a world model, or a bundle such as
            ``checkpoints/mt30``.
        repo: the repository, ``user/name``; made if it is not there.
        private: whether a repository that is made is private.
        license: of the weights, as the hub names it (``mit``); for the card.
        datasets: names of data sets on the hub that it learned from; for the card.
        message: of the commit.
    """

    source: str = setting(MISSING, input_path=True)
    repo: str = MISSING
    private: bool = True
    license: str | None = None
    datasets: list[str] = setting(default_factory=list)
    message: str = "Upload by pwm push"

    def validate(self) -> None:
        """Raise PwmError for what is not there, or no name of a repository."""
        require_inputs(self)
        require_repo(self.repo)


def require_repo(repo: str) -> None:
    """Raise PwmError for what is no name of a repository with its owner."""
    owner, _, name = repo.partition("/")
    if not owner or not name or "/" in name:
        raise PwmError(f"repo={repo} is no name of a repository; give user/name.")


def push(config: PushConfig) -> str:
    """Put checkpoints into a model repository of the Hugging Face hub, with a model card.

    Only what commands read goes there, in one commit, after its checksums were compared.

    Returns:
        The commit's address.

    Raises:
        PwmError: for settings that do not fit, damaged files, no token, or what the hub refuses.
    """
    config.validate()
    require_token()
    with tempfile.TemporaryDirectory(prefix="pwm-push-") as directory, never_silent("push"):
        folder = Path(directory)
        gather(Path(config.source), folder)
        held = verified(folder)
        page = card_page(held, folder, config.repo, config.license, config.datasets)
        write_atomically(folder / "README.md", page.encode())
        address = upload(folder, config.repo, config.private, config.message)
    console.print(f"{config.source} is on the hub: {address}", soft_wrap=True)
    return address
