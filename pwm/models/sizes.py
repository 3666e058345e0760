"""The sizes of the published world models."""

from __future__ import annotations

from dataclasses import replace

from pwm.models.world_model import ModelSize

PUBLISHED_SIZES = {
    "1M": ModelSize(256, 1, 384, 128, 96, 2),
    "5M": ModelSize(256, 1, 512, 512, 96, 5),
    "19M": ModelSize(1024, 2, 1024, 768, 96, 5),
    "48M": ModelSize(1792, 3, 1792, 768, 96, 5),
    "317M": ModelSize(4096, 4, 4096, 1376, 96, 8),
}


_MT30_19M_LATENT = 512


def size_name(size: ModelSize, has_q: bool) -> str:
    """The published name of an architecture, whatever its task embedding, or ``custom``."""
    for name, published in PUBLISHED_SIZES.items():
        same = replace(size, task_dim=published.task_dim)
        if name == "19M" and size.latent_dim == _MT30_19M_LATENT:
            same = replace(same, latent_dim=published.latent_dim)
        if not has_q:
            same = replace(same, num_q=published.num_q)
        if same == published:
            return name
    return "custom"
