"""Growth from the simulators alone: policies get better from round to round."""

from __future__ import annotations

from pathlib import Path

import pytest

from pwm.cli.main import main
from pwm.core.suites import SUITES
from pwm.evaluation.published_scores import figure
from pwm.reporting.growth_rounds import Round, read_rounds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

TASKS = SUITES["quick"].names


@pytest.fixture(scope="module")
def rounds(tmp_path_factory) -> list[Round]:
    """The rounds of the suite quick, with the settings that `pwm grow` has for it."""
    out: Path = tmp_path_factory.mktemp("grows") / "run"
    assert main(["grow", f"out={out}", "suite=quick", "device=cpu"]) == 0
    return read_rounds(out)


def scores(entry: Round) -> dict[str, float]:
    return {name: task.normalized_score for name, task in entry.tasks.items()}


def test_the_mean_rises(rounds):
    assert rounds[-1].mean_normalized_score > rounds[0].mean_normalized_score + 20


@pytest.mark.parametrize("task", TASKS)
def test_every_task_improves_over_its_first_round(rounds, task):
    assert scores(rounds[-1])[task] > scores(rounds[0])[task]


def test_four_of_five_reach_most_of_the_published_score(rounds):
    reached = [
        task
        for task in TASKS
        if scores(rounds[-1])[task] >= 0.7 * figure("mt80", "pwm-48M", task).normalized_score
    ]
    assert len(reached) >= 4, scores(rounds[-1])
