from __future__ import annotations

from functools import partial

import pytest
from torch import nn

from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.runtime.device import free_memory, require_room


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
