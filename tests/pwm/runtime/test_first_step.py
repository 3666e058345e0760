from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

from pwm.runtime import first_step
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.first_step import FirstStep

CPU = torch.device("cpu")


@pytest.fixture
def said(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(first_step, "console", Console(file=file, width=200))
    return file


def test_building_is_said_before_the_step_and_its_time_once(said):
    forgot = []
    accelerator = Accelerator(torch.device("cuda"), fused=True)
    first = FirstStep(accelerator, "the iteration", lambda: forgot.append(1))
    assert said.getvalue().startswith("building kernels for the iteration: ")
    assert not forgot
    first.report(torch.ones(2))
    first.report(torch.ones(2))
    assert said.getvalue().count("with building") == 1
    assert forgot == [1]


def test_an_eager_loop_has_nothing_to_say(said):
    FirstStep(Accelerator(CPU), "the iteration", pytest.fail).report(torch.ones(2))
    assert not said.getvalue()
