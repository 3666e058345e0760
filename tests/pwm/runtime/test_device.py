from __future__ import annotations

import pytest
import torch

from pwm.core.errors import PwmError
from pwm.runtime.device import resolve_device


def test_auto_takes_a_gpu_only_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


def test_cpu():
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cud", "use auto, cpu, cuda"),
        ("gpu", "use auto, cpu, cuda"),
        ("", "unknown device"),
        ("cuda:x", "unknown device"),
        ("meta", "device=meta"),
        ("cuda:99", "device=cuda:99"),
    ],
)
def test_devices_that_are_not_there_are_refused(name, words):
    with pytest.raises(PwmError) as caught:
        resolve_device(name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
