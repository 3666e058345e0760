"""Figures of a finished run."""

from __future__ import annotations

import json

import numpy as np

from pwm.reporting.run_figures import diagnostics_figures


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
