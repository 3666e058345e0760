from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pwm.core.errors import PwmError
from pwm.models.layers import NormedLinear, OutputLinear, StackedLinear, init_weights
from pwm.multitask.finetuning import (
    Finetuning,
    OthersShare,
    first_share,
    require_finetuning,
    task_shares,
)
from pwm.multitask.importance import Units, fisher, keep_only

SETTINGS = Finetuning(rate=2.0, power=0.5, switch=0.3)


def test_diminish_fades_as_its_formula_says():
    share = OthersShare("diminish", 0.6, SETTINGS, 1000)
    assert share.at(0) == 0.6
    assert share.at(250) == pytest.approx(0.6 * math.exp(-1))
    spans = list(share.spans(0, 120))
    assert [span[:2] for span in spans] == [(0, 50), (50, 100), (100, 120)]
    assert [span[2] for span in spans] == [share.at(0), share.at(50), share.at(100)]


@pytest.mark.parametrize("finetune", ["diminish", "switch", "full"])
def test_a_run_that_goes_on_has_the_same_shares(finetune):
    share = OthersShare(finetune, 0.6, SETTINGS, 1000)

    def each(start: int) -> list[float]:
        return [s for first, last, s in share.spans(start, 1000) for _ in range(first, last)]

    assert each(77) == each(0)[77:]


def test_switch_leaves_the_others_out_at_once():
    share = OthersShare("switch", 0.5, SETTINGS, 1000)
    assert list(share.spans(0, 1000)) == [(0, 300, 0.5), (300, 1000, 0.0)]
    assert list(OthersShare("lora", 0.2, SETTINGS, 10).spans(3, 10)) == [(3, 10, 0.2)]


def test_shares_of_tasks():
    targets = np.array([True, False, False, True])
    assert task_shares(targets, 0.5).tolist() == [0.25, 0.25, 0.25, 0.25]
    assert task_shares(targets, 0.0).tolist() == [0.5, 0, 0, 0.5]
    assert task_shares(np.array([True, True]), 0.5).tolist() == [0.5, 0.5]
    assert [first_share(*given) for given in (("switch", None), ("full", None), ("full", 0.2))] == [
        0.5, 0.0, 0.2,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"finetune": "loar"}, "did you mean 'lora'"),
        ({"replay": 1.0}, "below 1"),
        ({"finetune": "switch", "replay": 0.0}, "replay=0 leaves the others out"),
        ({"balance": "size"}, "does not go with balance=size"),
        ({"finetuning": Finetuning(by="neuron")}, "unknown finetuning.by"),
        ({"finetuning": Finetuning(rank=0)}, "rank"),
    ],
)
def test_settings_that_cannot_work(settings, sentence):
    good = {"finetune": "full", "replay": None, "balance": "task", "finetuning": Finetuning()}
    require_finetuning(SimpleNamespace(**good))
    with pytest.raises(PwmError, match=sentence):
        require_finetuning(SimpleNamespace(**{**good, **settings}))


def test_fisher_information_is_the_mean_squared_gradient_of_samples():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    unused = nn.Parameter(torch.ones(1))
    samples = torch.tensor([[1.0, 0], [3, 2]])
    found = fisher([weight, unused], ((sample * weight).sum() for sample in samples))
    assert found[0].tolist() == [5.0, 2.0]
    assert found[1].tolist() == [0.0]


def layers() -> dict[str, nn.Module]:
    made = {"a": NormedLinear(2, 3), "b": OutputLinear(3, 1), "c": StackedLinear(2, 2, 2, True)}
    for layer in made.values():
        layer.apply(init_weights)
    return made


def information(units: Units, important: dict[int, float]) -> list[torch.Tensor]:
    """Ones, but for some outputs of the first layer."""
    values = [torch.ones_like(parameter) for parameter in units.parameters]
    for tensor in values[:4]:
        for output, value in important.items():
            tensor[output] = value
    return values


def test_the_units_that_matter_more_for_the_target_are_chosen():
    units = Units(layers())
    target, others = information(units, {1: 9.0, 2: 9.0}), information(units, {2: 99.0})
    chosen = units.chosen(target, others, 0.1, "unit")  # of 15 + 4 + 20 weights
    assert chosen["a"].tolist() == [False, True, False]
    assert not chosen["b"].any() and not chosen["c"].any()
    alone = units.chosen(target, None, 0.2, "unit")
    assert alone["a"].tolist() == [False, True, True]
    by_layer = units.chosen(target, others, 0.1, "layer")
    assert by_layer["b"].all() or by_layer["c"].all()
    assert not by_layer["a"].any()  # others need it more
    whole = units.chosen(target, others, 1.0, "unit")
    assert all(mask.all() for mask in whole.values())


def test_training_changes_the_chosen_units_alone():
    parts = layers()
    units = Units(parts)
    units.train_only(
        {
            "a": torch.tensor([False, True, False]),
            "b": torch.tensor([False]),
            "c": torch.tensor([[True, True], [False, True]]),
        }
    )
    assert not any(parameter.requires_grad for parameter in parts["b"].parameters())
    before = {name: [p.detach().clone() for p in part.parameters()] for name, part in parts.items()}
    optimizer = torch.optim.Adam([p for p in units.parameters if p.requires_grad], lr=0.1)
    for _ in range(3):
        loss = sum((p * torch.randn_like(p)).sum() for p in units.parameters)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for now, then in zip(parts["a"].parameters(), before["a"], strict=True):
        assert torch.equal(now[[0, 2]], then[[0, 2]]) and (now[1] != then[1]).all()
    for now, then in zip(parts["c"].parameters(), before["c"], strict=True):
        assert torch.equal(now[1, 0], then[1, 0]) and (now[0] != then[0]).all()


def test_gradients_of_entries_that_are_not_kept_are_zero():
    weight = nn.Parameter(torch.ones(2, 2))
    keep_only(weight, torch.tensor([[True], [False]]))
    (weight * torch.tensor([[1.0, 2], [torch.nan, 3]])).sum().backward()
    assert weight.grad.tolist() == [[1, 2], [0, 0]]
