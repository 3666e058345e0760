"""Independent random streams that follow from a seed and a name."""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, name: str) -> int:
    """The seed, in 0..2**32-1, of the stream called ``name``.

    It has 32 bits because torch's generator on the CPU ignores the bits above them.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "little")


def stream(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that starts the stream called ``name``."""
    return torch.Generator(device).manual_seed(stream_seed(seed, name))
