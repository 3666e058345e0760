"""Where a loop runs."""

from __future__ import annotations

import difflib

import torch

from pwm.errors import PwmError


def resolve_device(name: str) -> torch.device:
    """``auto`` picks a GPU if there is one; anything else is what torch calls a device.

    Raises:
        PwmError: for an unknown device, or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        close = difflib.get_close_matches(name, ["auto", "cpu", "cuda"], n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "; use auto, cpu or cuda."
        raise PwmError(f"unknown device '{name}'{hint}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise PwmError(f"device={name} was asked for, but torch finds no GPU; use device=cpu.")
    return device
