"""A training run's page at Weights & Biases: the same one however often the run was stopped."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically

ID_FILE = "wandb_id.txt"
_OFFLINE = "set WANDB_MODE=offline to log to files, which `wandb sync` uploads later"


def require_wandb(project: str | None) -> None:
    """Raise PwmError if a W&B project is given and nothing could be logged there.

    At a terminal W&B asks for a key that is missing, now and not after the data were read.
    """
    if project is None:
        return
    wandb = _imported()
    try:
        wandb.login()
    except Exception as error:
        raise PwmError(
            f"W&B logging was asked for, and W&B does not log in ({error}); give the key by `wandb "
            f"login` or WANDB_API_KEY, or {_OFFLINE}."
        ) from error


def start_wandb(directory: Path, project: str, config: Mapping[Any, Any]) -> Any:
    """Begin or go on with the W&B run of a run directory.

    Its id is kept in ``wandb_id.txt`` there, so that a run that was stopped goes on under it,
    offline too.

    Args:
        directory: the run directory.
        project: the W&B project.
        config: the resolved settings.

    Raises:
        PwmError: if W&B is not installed or does not start a run.
    """
    wandb = _imported()
    file = directory / ID_FILE
    if not file.is_file():
        write_atomically(file, secrets.token_hex(8).encode())
    try:
        return wandb.init(
            project=project,
            dir=str(directory),
            id=file.read_text().strip(),
            resume="allow",
            name=directory.name,
            config=dict(config),
            allow_val_change=True,
        )
    except Exception as error:
        raise PwmError(f"W&B does not start a run ({error}); {_OFFLINE}.") from error


def _imported() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise PwmError(
            "W&B logging was asked for, but wandb is not installed; "
            "pip install 'pwm-worldmodels[wandb]'."
        ) from error
    return wandb
