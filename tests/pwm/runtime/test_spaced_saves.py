from __future__ import annotations

import pytest

from pwm.runtime import spaced_saves
from pwm.runtime.spaced_saves import SpacedSaves


@pytest.mark.parametrize(("took", "wait"), [(0.5, 0.0), (2.0, 40.0)])
def test_a_save_waits_for_twenty_times_what_a_slow_one_took(took, wait, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(spaced_saves.time, "monotonic", lambda: now[0])
    saves = SpacedSaves()
    assert saves.due
    with saves.saving():
        now[0] += took
    assert saves.due == (wait == 0)
    now[0] += wait - 0.1 if wait else 0
    assert saves.due == (wait == 0)
    now[0] += 0.2
    assert saves.due
