"""Noise for exploration: of unit variance, with the spectrum that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pwm.simulation.colored_noise import colored_noise


@given(st.integers(1, 60), st.floats(0, 2))
def test_every_step_is_standard_normal(steps, color):
    noise = colored_noise(np.random.default_rng(0), steps, 4000, color)
    assert noise.shape == (steps, 4000) and noise.dtype == np.float32
    np.testing.assert_allclose(noise.mean(1), 0, atol=0.08)
    np.testing.assert_allclose(noise.std(1), 1, atol=0.06)


@pytest.mark.parametrize("color", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("steps", [500, 501])
def test_power_falls_with_frequency(color, steps):
    noise = colored_noise(np.random.default_rng(1), steps, 500, color)
    power = np.square(np.abs(np.fft.rfft(noise, axis=0))).mean(1)[1:-1]
    slope, _ = np.polyfit(np.log(np.arange(1, len(power) + 1)), np.log(power), 1)
    assert slope == pytest.approx(-color, abs=0.05)


def test_columns_are_independent():
    noise = colored_noise(np.random.default_rng(2), 100, 2000, 1.0)
    products = (noise[:, :1000] * noise[:, 1000:]).mean()
    assert abs(products) < 0.02
