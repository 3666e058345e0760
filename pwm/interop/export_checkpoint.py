"""``pwm export``: a world model becomes a checkpoint that its authors' code loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, replacing
from pwm.core.progress import console
from pwm.core.settings import setting
from pwm.core.validation import require_writable
from pwm.interop.tdmpc2_checkpoints import published_layout, to_published
from pwm.models.world_model import load_world_model


@dataclass
class ExportConfig:
    """Settings of ``pwm export``.

    Attributes:
        checkpoint: a world model: a pretraining run, one checkpoint, or an imported model.
        out: the file to write; it must not exist.
        placeholders: for TD-MPC2 under tensordict 0.14 or newer, which also asks for
            tensors without content that older ones refuse.
    """

    checkpoint: str = setting(MISSING, input_path=True)
    out: str = MISSING
    placeholders: bool = False


def export_checkpoint(config: ExportConfig) -> Path:
    """Export a world model for TD-MPC2's code, in its new layout.

    A model without Q ensemble and prior is written in PWM's layout. Importing the file gives the
    same weights bit for bit.

    Returns:
        The file.

    Raises:
        PwmError: if there is no world model, the layout cannot express it (observation
            normalization), or the file exists.
    """
    out = Path(config.out)
    if out.exists():
        raise PwmError(f"{out} exists; give another out= or delete it.")
    require_writable(config.out)
    model = load_world_model(config.checkpoint)
    state = to_published(model, config.placeholders)
    make_directory(out.parent)
    with replacing(out) as file:
        torch.save({"model": state}, file)
    console.print(
        f"{config.checkpoint}, of suite {model.suite.name}, is written to {out} in layout "
        f"{published_layout(model)}."
    )
    return out
