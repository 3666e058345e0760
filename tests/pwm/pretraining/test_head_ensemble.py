"""``heads.members`` of pretraining: further heads on one encoder, and extraction with them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from three_tasks import CONFIG, SIZE, SUITE, make_batch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.models.further_heads import FurtherHeads, further_models
from pwm.models.world_model import KIND, WorldModel, load_world_model, model_meta
from pwm.multitask.sharing import HeadSharing
from pwm.pretraining.config import PretrainConfig
from pwm.pretraining.learner import WorldModelLearner
from pwm.pretraining.losses import roll_out
from pwm.runtime.checkpoint import load_checkpoint, save_checkpoint


def make_model(q_and_prior: bool = False) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(SIZE, SUITE, q_and_prior)


def make_learner(members: int, q_and_prior: bool = False, **changes) -> WorldModelLearner:
    model = make_model(q_and_prior)
    heads = FurtherHeads(model, members - 1, seed=3) if members > 1 else None
    discount = torch.tensor([task.discount for task in SUITE])
    config = dataclasses.replace(CONFIG, **changes)
    return WorldModelLearner(model, config, discount, heads=heads)


def train(learner: WorldModelLearner, first: int, end: int) -> dict[str, Tensor]:
    metrics: dict[str, Tensor] = {}
    for step in range(first, end):
        learner.set_learning_rate(step)
        metrics = learner.update(make_batch(step))
    return metrics


@pytest.mark.parametrize("q_and_prior", [False, True])
def test_the_world_model_is_bit_for_bit_what_it_is_without_heads(q_and_prior):
    states = []
    for members in (1, 3):
        learner = make_learner(members, q_and_prior)
        torch.manual_seed(1)
        train(learner, 0, 3)
        states.append(learner.model.state_dict())
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_a_step_is_that_of_each_head_on_its_own_windows():
    """Losses window by window, and the step by Adam, written out for each member."""
    learner = make_learner(3)
    ensemble, batch = learner.heads, make_batch(0)
    models = ensemble.heads.models(learner.model)
    assert models[0].encoder is learner.model.encoder
    chosen, expected, wanted = ensemble.heads.windows(batch.obs[0], batch.action[0]), [], []
    rollout = roll_out(learner.model, batch)
    for model, counted in zip(models, chosen, strict=True):
        total = torch.zeros(())
        for b in torch.nonzero(counted).flatten().tolist():
            z, task = rollout.latents[0, b].detach(), batch.task[b]
            for t, action in enumerate(batch.action[:, b]):
                logits = model.reward_logits(z, action, task)
                cross_entropy = -(
                    two_hot(batch.reward[t, b], model.bins) * logits.log_softmax(-1)
                ).sum()
                z = model.next(z, action, task)
                apart = (z - rollout.targets[t, b]).square().mean()
                total = total + 0.99**t / 3 * (20 * apart + 0.1 * cross_entropy)
        wanted.append(total / counted.sum())
    parameters = list(ensemble.heads.parameters())
    grads = torch.autograd.grad(sum(wanted), parameters)
    norm = torch.cat([g.flatten() for g in grads]).norm()
    for parameter, grad in zip(parameters, grads, strict=True):
        copy = parameter.detach().clone().requires_grad_()
        copy.grad = grad * (20 / norm).clamp(max=1)
        torch.optim.Adam([copy], lr=1e-3).step()
        expected.append(copy.detach())
    torch.testing.assert_close(ensemble.losses(batch, rollout), torch.stack(wanted))
    learner.set_learning_rate(0)
    metrics = learner.update(batch)
    torch.testing.assert_close(metrics["heads_grad_norm"], norm)
    for parameter, copy in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), copy, rtol=1e-4, atol=1e-6)


def two_hot(reward: Tensor, bins: Tensor) -> Tensor:
    """By distance to each bin."""
    symlog = reward.sign() * reward.abs().log1p()
    return (1 - (bins - symlog).abs() / (bins[1] - bins[0])).clamp(min=0)


def test_losses_have_their_derivative():
    """Against central differences in a direction of all heads' weights."""
    learner = make_learner(2)
    learner.model.double(), learner.heads.heads.double()
    batch = make_batch(0)
    batch = batch._replace(
        obs=batch.obs.double(), action=batch.action.double(), reward=batch.reward.double()
    )
    parameters = list(learner.heads.heads.parameters())
    torch.manual_seed(0)
    with torch.no_grad():
        rollout = roll_out(learner.model, batch)
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn_like(parameter))
    grads = torch.autograd.grad(learner.heads.losses(batch, rollout).sum(), parameters)
    ways, ends = [torch.randn_like(parameter) for parameter in parameters], []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for parameter, way in zip(parameters, ways, strict=True):
                parameter.add_(step * way)
            ends.append(learner.heads.losses(batch, rollout).sum())
    analytic = sum((g * w).sum() for g, w in zip(grads, ways, strict=True))
    torch.testing.assert_close(analytic, (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-7)


def test_each_member_has_its_own_half_of_the_windows_in_any_batch():
    heads, batch = FurtherHeads(make_model(), 3, seed=3), make_batch(0, 4000)
    chosen = heads.windows(batch.obs[0], batch.action[0])
    assert set(chosen.unique().tolist()) == {0.0, 1.0}
    assert ((chosen.mean(1) - 0.5).abs() < 0.04).all()
    for a, b in ((0, 1), (0, 2), (1, 2)):  # drawn apart from each other
        assert abs((chosen[a] * chosen[b]).mean() - 0.25) < 0.04
    order = torch.randperm(4000)
    again = FurtherHeads(make_model(), 3, seed=3).windows(
        batch.obs[0, order], batch.action[0, order]
    )
    assert torch.equal(again, chosen[:, order])
    other = FurtherHeads(make_model(), 3, seed=4).windows(batch.obs[0], batch.action[0])
    assert 0.4 < (other == chosen).float().mean() < 0.6


def test_a_spoilt_batch_leaves_heads_alone():
    learner = make_learner(2)
    before = [p.clone() for p in learner.heads.heads.parameters()]
    batch = make_batch(0)
    batch.reward[0, 0] = torch.nan
    learner.set_learning_rate(0)
    learner.update(batch)
    for parameter, old in zip(learner.heads.heads.parameters(), before, strict=True):
        assert torch.equal(parameter, old)


def test_resuming_is_bit_exact(tmp_path):
    whole, half = make_learner(3), make_learner(3)
    train(whole, 0, 4)
    train(half, 0, 2)
    save_checkpoint(tmp_path / "half", KIND, half.tensors(), {})
    resumed = make_learner(3)
    with torch.no_grad():
        for tensor in resumed.heads.heads.state_dict().values():
            tensor.zero_()  # everything must come from the checkpoint
    resumed.load(load_checkpoint(tmp_path / "half", KIND))
    train(resumed, 2, 4)
    theirs = resumed.tensors()
    for group, items in whole.tensors().items():
        for name, tensor in items.items():
            assert torch.equal(tensor, theirs[group][name]), f"{group}/{name}"


def test_they_are_opened_beside_their_world_model(tmp_path):
    learner = make_learner(3)
    train(learner, 0, 1)
    meta = model_meta(learner.model)
    save_checkpoint(tmp_path / "with", KIND, learner.tensors(), meta)
    model = load_world_model(tmp_path / "with")
    opened = further_models(tmp_path / "with", model)
    assert len(opened) == 2
    z, action, task = torch.rand(3, 16), torch.rand(3, 2), torch.arange(3)
    for ours, theirs in zip(opened, learner.heads.heads.models(learner.model), strict=True):
        assert ours.encoder is model.encoder
        assert not any(p.requires_grad for p in ours.parameters())
        assert torch.equal(ours.next(z, action, task), theirs.next(z, action, task))
        assert torch.equal(ours.reward(z, action, task), theirs.reward(z, action, task))
        assert not torch.equal(ours.next(z, action, task), model.next(z, action, task))
    save_checkpoint(tmp_path / "model", KIND, {"model": learner.model.state_dict()}, meta)
    assert further_models(tmp_path / "model", model) == []


@pytest.mark.parametrize(
    "changes",
    [{"sharing": "soft"}, {"groups": 2}, {"parallel": "ddp"}, {"accumulate": 2}],
    ids=str,
)
def test_what_they_do_not_go_with_is_refused(changes, tmp_path):
    config = PretrainConfig(data="d", out=str(tmp_path / "o"), heads=HeadSharing(members=3))
    config.validate()
    with pytest.raises(PwmError, match=r"heads\.members=3 .* does not go with (\w+)="):
        dataclasses.replace(config, **changes).validate()
