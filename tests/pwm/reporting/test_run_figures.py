"""Figures of a finished run."""

from __future__ import annotations

import json

import numpy as np

from pwm.reporting.run_figures import diagnostics_figures, pretraining_figures


def test_diagnostics_reach_as_far_as_the_task_with_the_longest_episodes(tmp_path):
    def figures(*far: str):
        values = dict.fromkeys(far, 0.5)
        return {"latent_error": values, "reward_r2": values}

    (tmp_path / "world_model").mkdir()
    file = tmp_path / "world_model" / "diagnostics.json"
    tasks = {"short": figures("1"), "longer": figures("1", "4")}
    file.write_text(json.dumps({"steps": [1, 4, 16], "tasks": tasks}))
    found = diagnostics_figures(tmp_path, ["longer", "short"])
    assert found["steps"] == [1, 4]
    assert found["latent_error"]["longer"] == [0.5, 0.5]
    np.testing.assert_equal(found["reward_r2"]["short"], [0.5, np.nan])


def test_metrics_of_single_tasks_are_one_figure_each(tmp_path):
    (tmp_path / "world_model").mkdir()
    lines = [
        {"step": step, "lr": 0.1, "loss": 1.0, "a/loss": 2.0, "a/weight": 1.0} for step in (1, 2)
    ]
    lines[1]["b/loss"] = 3.0
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "world_model" / "metrics.jsonl").write_text(text)
    found = {figure["title"]: figure["main"] for figure in pretraining_figures(tmp_path)}
    assert found == {
        "loss": True, "lr": False, "loss of every task": False, "weight of every task": False,
    }  # fmt: skip
    assert next(iter(found)) == "loss"
