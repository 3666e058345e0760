from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pwm

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "index.md"


@pytest.mark.parametrize("name", pwm.__all__)
def test_every_public_name_opens_and_has_a_docstring(name: str) -> None:
    thing = getattr(pwm, name)
    assert thing.__name__ == name
    assert thing.__doc__


def test_the_reference_shows_every_public_name() -> None:
    lines = REFERENCE.read_text().splitlines()
    shown = [line.removeprefix("::: pwm.") for line in lines if line.startswith("::: ")]
    assert sorted(shown) == sorted(pwm.__all__)


def test_importing_pwm_loads_neither_torch_nor_a_simulator() -> None:
    heavy = "torch", "mujoco", "dm_control", "metaworld"
    code = f"import sys, pwm; dir(pwm); print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'loed_policy'"):
        pwm.loed_policy  # noqa: B018
