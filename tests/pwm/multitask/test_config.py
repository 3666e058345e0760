from __future__ import annotations

import pytest

from pwm.multitask.config import Balancing, balance_note
from pwm.pretraining.learner import LearnerConfig


@pytest.mark.parametrize("balance", ["dwa", "progress"])
def test_a_run_of_two_periods_is_told_that_its_balance_does_nothing(balance):
    short, long = (
        LearnerConfig(balance=balance, steps=steps, balancing=Balancing(period=50))
        for steps in (100, 101)
    )
    (line,) = balance_note(short)
    assert (
        f"balance={balance}" in line and "steps=100 treat tasks alike; give a period of 10" in line
    )
    assert not balance_note(long)
    assert not balance_note(LearnerConfig(balance="gradnorm", steps=1))
