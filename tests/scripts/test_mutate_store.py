from __future__ import annotations

import mutate_store
import pytest
from judging import judged

from pwm.core.errors import PwmError


def test_damaged_stores_are_read_correctly_or_refused(tmp_path):
    tally = mutate_store.run(tmp_path, 120, seed=0)
    assert not tally.failures
    assert tally.tried == 120 == tally.read + tally.refused
    assert tally.read > 5, "appending does no harm"
    assert tally.refused > 60


def refuse(sentence: str) -> mutate_store.Content:
    raise PwmError(sentence)


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda: {"small": b"1"}, "read"),
        (lambda: {"small": b"2"}, "other content than it had"),
        (lambda: {"other": b"1"}, "other content than it had"),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: refuse("It is damaged."), "refused"),
        (lambda: refuse("It is damaged.\nVery."), "not one sentence: It is damaged.\nVery."),
    ],
)
def test_what_counts_as_a_failure(read, outcome):
    right = mutate_store.within({"small": b"1", "large": b"3"})
    assert judged(read, right) == outcome
