"""The speed benchmark runs; its figures are for quiet machines and are not asserted here."""

from __future__ import annotations

import sys
from dataclasses import replace

import benchmark_envs

from pwm.core.suites import Suite, get_suite


def test_benchmark_prints_a_row_a_task(monkeypatch, capsys) -> None:
    def short(tasks: str) -> Suite:
        suite = get_suite(tasks)
        return Suite(suite.name, tuple(replace(task, episode_length=20) for task in suite))

    monkeypatch.setattr(benchmark_envs, "get_suite", short)
    words = ["benchmark_envs.py", "--tasks", "pendulum-swingup,mw-reach", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", words)
    assert benchmark_envs.main() in (0, 1)
    printed = capsys.readouterr()
    assert printed.err == ""
    rows = [line.split() for line in printed.out.splitlines()]
    assert [row[0] for row in rows[2:-1]] == ["pendulum-swingup", "mw-reach"]
    assert [row[-1] for row in rows[2:-1]] == ["30%", "10%"]
