"""Where a loop runs."""

from __future__ import annotations

import torch

from pwm.core.errors import PwmError


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
        raise PwmError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:1.") from error
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise PwmError(
            f"device={name} was asked for, but torch cannot compute there; use device=cpu or auto."
        ) from error
    return device
