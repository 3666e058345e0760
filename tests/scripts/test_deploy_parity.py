from __future__ import annotations

from pathlib import Path

import deploy_parity
import numpy as np
from deployable import ARM, observation_policy


def test_a_row_has_what_deploying_measured_and_what_rounding_does(tmp_path, capsys):
    observation_policy(ARM).save(tmp_path / "policies" / "arm")
    path = str(tmp_path / "policies")
    deploy_parity.main([f"policy={path}", "to=numpy"])
    heads, _, row = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == [path, "action, numpy", "1"] and len(cells) == heads.count("|") - 1
    in_float64, file, torch, both, observation = (float(c.split(",")[1]) for c in cells[3:])
    assert in_float64 < 1e-12 < min(file, torch, both)
    assert observation == float(f"{deploy_parity.sensitivity(Path(path, 'arm')):.1e}")


def test_an_observation_moves_an_action_by_its_rounding(tmp_path):
    policy = observation_policy(ARM)
    policy.save(tmp_path / "small")
    policy.obs_mean[:3] += (
        1000 * policy.obs_scale[:3]
    )  # observations of a thousand scales round more
    policy.save(tmp_path / "large")
    small, large = (deploy_parity.sensitivity(tmp_path / name) for name in ("small", "large"))
    assert 100 < large / small < 10000 and np.isfinite(large)
