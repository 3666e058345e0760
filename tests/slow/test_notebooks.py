"""The notebooks run from the first cell to the last, and the policy is better than none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("nbclient", reason="runs notebooks")
from run_notebooks import executed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"


def test_the_first_policy(tmp_path):
    notebook = executed(NOTEBOOKS / "first_policy.ipynb", tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(o["text"] for o in outputs if o["output_type"] == "stream")
    assert "pwm: error" not in printed
    found = re.search(r"return of random actions (\d+), of the policy (\d+)", printed)
    assert found, printed
    assert int(found[2]) > int(found[1]) + 200
    for kind in ("image/png", "image/gif"):
        assert any(kind in output.get("data", {}) for output in outputs)
