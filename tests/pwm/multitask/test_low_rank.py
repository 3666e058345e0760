from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from deployable import CHEETAH, UNKNOWN, world_model

from pwm.core.errors import PwmError
from pwm.models.layers import StackedLinear
from pwm.models.low_rank import base_entry
from pwm.models.widening import EMBEDDING
from pwm.models.world_model import KIND, WorldModel, load_world_model, model_meta
from pwm.multitask.low_rank import LowRankDeltas
from pwm.pretraining.finetune import linear_layers
from pwm.runtime.checkpoint import save_checkpoint, to_float16

INPUTS = torch.randn(5, 17), torch.rand(5, 6), torch.tensor([0, 1, 0, 1, 1])


def outputs(model: WorldModel) -> list[torch.Tensor]:
    obs, action, task = INPUTS
    z = model.encode(obs, task)
    return [z, model.next(z, action, task), model.reward(z, action, task)]


def with_deltas(base: Path, checkpoint: Path) -> tuple[WorldModel, LowRankDeltas]:
    model = load_world_model(base)
    entry = base_entry(base, checkpoint, 0.5)
    return model, LowRankDeltas(model, linear_layers(model), 2, entry, [EMBEDDING])


def stir(deltas: LowRankDeltas) -> None:
    state = deltas.state_dict()
    deltas.load_state_dict({name: 0.3 * torch.randn_like(t) for name, t in state.items()})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    model = world_model(CHEETAH, UNKNOWN, normalize_obs=False)
    state = to_float16(model.state_dict())  # as world models ship
    save_checkpoint(tmp_path / "base", KIND, {"model": state}, model_meta(model))
    return tmp_path / "base"


def test_deltas_begin_as_none_and_merge_to_what_they_computed(base, tmp_path):
    plain = outputs(load_world_model(base))
    model, deltas = with_deltas(base, tmp_path / "small")
    for value, before in zip(outputs(model), plain, strict=True):
        assert torch.equal(value, before)
    stir(deltas)
    changed = outputs(model)
    assert not torch.equal(changed[1], plain[1])
    meta = {**model_meta(model), **deltas.meta}
    save_checkpoint(tmp_path / "small", KIND, {"model": deltas.state_dict()}, meta)
    opened = load_world_model(tmp_path / "small")
    for value, before in zip(outputs(opened), changed, strict=True):
        assert torch.equal(value, before)
    for name, tensor in deltas.merged_state().items():
        assert torch.equal(tensor, opened.state_dict()[name])
    assert set(deltas.merged_state()) == set(opened.state_dict())


def test_only_deltas_train(base, tmp_path):
    model, deltas = with_deltas(base, tmp_path / "small")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(name.endswith((".into", ".out")) for name in trained)
    own = {name for name in deltas.state_dict() if "delta" in name}
    assert len(own) == len(trained) == 2 * len(linear_layers(model))


def test_deltas_of_stacked_layers():
    layer = StackedLinear(3, 4, 5, normed=False)
    torch.nn.init.normal_(layer.weight)
    plain = layer.weight.detach().clone()
    deltas = LowRankDeltas(torch.nn.ModuleDict({"q": layer}), {"q": layer}, 2, {"scale": 2.0}, [])
    stir(deltas)
    into, out = deltas.state_dict().values()
    assert into.shape == (3, 2, 4) and out.shape == (3, 5, 2)
    x, each = torch.randn(1, 7, 4), []
    for i in range(3):
        each.append(x[0] @ (plain[i] + 2 * out[i] @ into[i]).T)
    torch.testing.assert_close(layer(x), torch.stack(each))


def test_a_base_that_moved_along_is_found_and_another_is_not(base, tmp_path):
    home = tmp_path / "here"
    home.mkdir()
    shutil.move(base, home / "base")
    model, deltas = with_deltas(home / "base", home / "small")
    stir(deltas)
    meta = {**model_meta(model), **deltas.meta}
    save_checkpoint(home / "small", KIND, {"model": deltas.state_dict()}, meta)
    expected = outputs(model)
    shutil.move(home, tmp_path / "there")
    opened = load_world_model(tmp_path / "there" / "small")
    assert torch.equal(outputs(opened)[2], expected[2])
    other = world_model(CHEETAH, UNKNOWN, normalize_obs=False)
    save_checkpoint(
        tmp_path / "there" / "base", KIND, {"model": other.state_dict()}, model_meta(other)
    )
    with pytest.raises(PwmError, match="not there as it was; put it back"):
        load_world_model(tmp_path / "there" / "small")
