from __future__ import annotations

import pytest
from benchmarks.rows import cpu_ways
from roofline import Ceilings, Cost, extraction_cost, pretraining_cost

from configs import changed
from pwm.extraction.config import ActorCriticConfig, CriticConfig

CONFIG = ActorCriticConfig(batch_size=8, horizon=2, critic=CriticConfig(batches=1))


@pytest.mark.slow
def test_a_critic_pass_costs_its_products():
    """Forward and gradient of weights in every layer, gradient of inputs in all but the first."""
    more, less = (
        extraction_cost("1M", changed(CONFIG, critic={"iterations": passes}), 2)
        for passes in (2, 1)
    )
    latent, samples, ensemble = 128, 2 * 2 * 8, 3
    layers = [(latent, 400, 2), (400, 200, 3), (200, 1, 3)]
    one_pass = sum(2 * samples * ensemble * i * o * products for i, o, products in layers)
    assert more.flops - less.flops == pytest.approx(one_pass)


@pytest.mark.slow
def test_costs_grow_with_the_batch_and_with_q():
    one = pretraining_cost("1M", 4, 1, q_and_prior=False)
    two = pretraining_cost("1M", 8, 1, q_and_prior=False)
    with_q = pretraining_cost("1M", 4, 1, q_and_prior=True)
    assert two.flops == pytest.approx(2 * one.flops)
    assert two.moved < 2 * one.moved  # weights and optimizer state are read once
    assert with_q.flops > 2 * one.flops


def test_the_floor_is_the_slower_of_computing_and_moving():
    assert Cost(flops=2e9, moved=1e6).floor_ms(1e12, 1e9) == pytest.approx(2.0)
    assert Cost(flops=2e9, moved=1e7).floor_ms(1e12, 1e9) == pytest.approx(10.0)


def test_only_hardware_with_bfloat16_is_measured_in_it():
    without = Ceilings(float32=1e9, tf32=2e9, bfloat16=None, copy=1e9)
    assert without.rates == {"float32": 1e9, "tf32": 2e9}
    assert [way.rate for way in cpu_ways(without)] == [1e9, 1e9]
    *others, last = cpu_ways(Ceilings(float32=1e9, tf32=2e9, bfloat16=3e9, copy=1e9))
    assert len(others) == 2 and (last.rate, last.acceleration.precision) == (3e9, "bfloat16")
