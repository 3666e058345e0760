"""Gaussian noise whose steps are correlated, for exploration (Eberhard et al. 2023)."""

from __future__ import annotations

import numpy as np


def colored_noise(rng: np.random.Generator, steps: int, size: int, color: float) -> np.ndarray:
    """Columns of noise whose power falls with the frequency f as f ** -color.

    Made in the frequency domain (Timmer & Koenig 1995); what is slower than the sequence is long
    has the power of its lowest frequency.

    Args:
        rng: what draws.
        steps: length of the sequence.
        size: independent columns.
        color: 0 for white noise, 1 for pink, 2 for red, which is nearly a random walk.

    Returns:
        (steps, size) float32, of which every entry alone is standard normal.
    """
    if steps < 2:
        return rng.standard_normal((steps, size)).astype(np.float32)
    frequency = np.fft.rfftfreq(steps)
    frequency[0] = frequency[1]
    scale = frequency ** (-color / 2)
    parts = rng.standard_normal((2, size, len(scale)))
    real = [0] if steps % 2 else [0, -1]  # where a transform of real numbers has no imaginary part
    parts[0][:, real] *= np.sqrt(2)
    parts[1][:, real] = 0
    variance = (4 * np.square(scale).sum() - 2 * np.square(scale[real]).sum()) / steps**2
    series = np.fft.irfft((parts[0] + 1j * parts[1]) * scale, steps)
    return (series.T / np.sqrt(variance)).astype(np.float32)
