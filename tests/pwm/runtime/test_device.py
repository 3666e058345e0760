from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.runtime.device import free_memory, require_room, resolve_device, use_device


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


def test_free_memory_is_below_all_memory():
    assert 1 << 24 < free_memory() < 1 << 50


def test_a_module_that_cannot_fit_is_refused_and_one_that_can_is_not():
    require_room(partial(nn.Linear, 1000, 1000))
    with pytest.raises(PwmError, match=r"weights alone take 3,7\d\d\.\d GiB"):
        require_room(partial(nn.Linear, 10**6, 10**6))


def test_a_world_model_that_cannot_fit_leaves_nothing_behind(toy, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["pretrain", f"data={toy.data}", f"out={out}", "model.mlp_dim=1000000"]) == 1
    assert "not enough memory for this model" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(("name", "current"), [("cuda:1", [1]), ("cuda", []), ("cpu", [])])
def test_a_gpu_that_is_named_by_its_number_becomes_the_current_one(name, current, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: torch.tensor(0.0))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device.index))
    assert use_device(name) == torch.device(name)
    assert chosen == current
