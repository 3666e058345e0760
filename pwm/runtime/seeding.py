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


def restore(generator: torch.Generator, state: torch.Tensor, seed: int, name: str) -> None:
    """Set a generator's state; if it is of another kind of device, start the stream ``name``.

    A generator's state has another size on a GPU than on a CPU. ``name`` should tell how far the
    stream was drawn from, so that what was drawn before does not come again.
    """
    if state.shape == generator.get_state().shape:
        generator.set_state(state)
    else:
        generator.manual_seed(stream_seed(seed, name))
