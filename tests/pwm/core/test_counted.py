from __future__ import annotations

from pwm.core.counted import counted


def test_one_is_singular_and_all_else_plural():
    found = [counted(number, "task") for number in (0, 1, 2, 1200)]
    assert found == ["0 tasks", "1 task", "2 tasks", "1,200 tasks"]
