"""The table of several seeds of a recipe."""

from __future__ import annotations

import seeds


def results(scores: dict[str, float], seconds: float) -> dict:
    tasks = {name: {"normalized_score": score} for name, score in scores.items()}
    method = {"mean_normalized_score": sum(scores.values()) / len(scores), "tasks": tasks}
    baselines = dict.fromkeys(("random", "bc", "bc_best", "data_mean"), method)
    return {**method, "baselines": baselines, "seconds": seconds}


def test_a_row_per_task_the_mean_and_the_interquartile_mean():
    first = results({"a": 0.0, "b": 40.0}, 61.4)
    second = results({"a": 20.0, "b": 100.0}, 59.6)
    assert seeds.table([first, second]).splitlines() == [
        "| task | seed 0 | seed 1 | mean | random | BC, all data | BC, best tenth | data mean |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| a | 0.0 | 20.0 | 10.0 | 10.0 | 10.0 | 10.0 | 10.0 |",
        "| b | 40.0 | 100.0 | 70.0 | 70.0 | 70.0 | 70.0 | 70.0 |",
        "| **mean** | 20.0 | 60.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 |",
        "",
        "Interquartile mean: 30.0, 95 % 20.0 to 60.0.",
        "",
        "Seconds per seed: 61, 60.",
    ]
    assert "Interquartile mean: 20.0." in seeds.table([first])
