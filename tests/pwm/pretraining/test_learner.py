from __future__ import annotations

import dataclasses

import pytest
import torch
from autocast import watch_backward
from torch import Tensor

from pwm.core.suites import Suite, Task
from pwm.data.windows.sampler import Batch
from pwm.models.world_model import KIND, ModelSize, WorldModel, load_world_model, model_meta
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.checkpoint import load_checkpoint, save_checkpoint

SUITE = Suite("pair", (Task("narrow", "dmcontrol", 3, 1, 20), Task("wide", "metaworld", 5, 2, 20)))
SIZE = ModelSize(encoder_dim=32, mlp_dim=32, latent_dim=32, task_dim=4, num_q=3, num_bins=21)
CONFIG = LearnerConfig(steps=100, lr=1e-3, lr_final=1e-4, warmup=4)


def make_learner(
    q_and_prior: bool = False,
    seed: int = 0,
    accelerator: Accelerator | None = None,
    **changes: object,
) -> WorldModelLearner:
    torch.manual_seed(seed)
    model = WorldModel(SIZE, SUITE, q_and_prior, normalize_obs=True)
    discount = torch.tensor([task.discount for task in SUITE])
    return WorldModelLearner(model, dataclasses.replace(CONFIG, **changes), discount, accelerator)


def make_batch(seed: int = 0, horizon: int = 3, size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(horizon + 1, size, 5, generator=generator)
    action = torch.rand(horizon, size, 2, generator=generator) * 2 - 1
    reward = torch.randn(horizon, size, generator=generator)
    return Batch(obs, action, reward, torch.arange(size) % 2)


def flat_state(learner: WorldModelLearner) -> dict[str, Tensor]:
    return {
        f"{group}/{name}": tensor.clone()
        for group, items in learner.tensors().items()
        for name, tensor in items.items()
    }


def assert_same_state(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


@pytest.mark.slow  # that losses fall is seen in test_pretrain.py, too
@pytest.mark.parametrize("q_and_prior", [False, True])
def test_overfits_one_small_batch(q_and_prior):
    learner = make_learner(q_and_prior, steps=400, lr=3e-3)
    batch = make_batch()
    losses = []
    for step in range(400):
        learner.set_learning_rate(step)
        losses.append({k: v.item() for k, v in learner.update(batch).items()})
    assert losses[-1]["reward_loss"] < 0.5 * losses[0]["reward_loss"]
    predicted = learner.model.reward(
        learner.model.encode(batch.obs[:-1], batch.task), batch.action, batch.task
    ).squeeze(-1)
    unexplained = (predicted - batch.reward).square().mean() / batch.reward.var()
    assert unexplained < 0.3
    if q_and_prior:
        assert losses[-1]["value_loss"] < 0.7 * losses[0]["value_loss"]


def test_bfloat16_is_of_the_forward_pass_alone():
    learner = make_learner(True, accelerator=Accelerator(torch.device("cpu"), bfloat16=True))
    casts = []
    learner.model.reward_head[-1].register_forward_hook(lambda *call: casts.append(call[-1].dtype))
    seen = watch_backward(learner.model)
    learner.update(make_batch())
    assert casts == [torch.bfloat16]
    assert len(seen) == len([*learner.trained, *learner.prior_parameters])
    assert not any(seen)


@pytest.mark.parametrize(("q_and_prior", "frozen"), [(False, False), (True, False), (True, True)])
def test_dynamics_get_the_same_gradient_in_two_parts(q_and_prior, frozen):
    plain, parts = make_learner(q_and_prior), make_learner(q_and_prior)
    parts._in_two_parts = True
    for learner in (plain, parts):
        if frozen:
            learner.model.freeze_encoder()
        with torch.no_grad():  # fresh reward and value heads are zero
            for parameter in learner.model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded()))
        torch.manual_seed(5)
        batch = make_batch()
        learner._gradients(batch, learner._noise(batch) if q_and_prior else None)
    for (name, one), two in zip(
        plain.model.named_parameters(), parts.model.parameters(), strict=True
    ):
        if one.grad is not None:
            torch.testing.assert_close(two.grad, one.grad, rtol=1e-4, atol=1e-7, msg=name)
    assert all(p.grad.abs().max() > 1e-5 for p in parts.model.dynamics.parameters())
    assert frozen == all(p.grad is None for p in parts.model.encoder.parameters())


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(9)


def test_learning_rate_warms_up_then_decays_linearly():
    learner = make_learner(steps=100, lr=1e-3, lr_final=1e-4, warmup=10, encoder_lr_scale=0.5)
    rates = [learner.set_learning_rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4, rel=0.01)
    assert rates[4] == pytest.approx(0.5 * (1e-3 - 0.04 * 9e-4), rel=1e-6)
    assert rates[50] == pytest.approx(5.5e-4)
    assert rates[100] == pytest.approx(1e-4)
    assert rates[9] > max(rates[:9])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    groups = learner.optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.5e-4, 1e-4])


def test_no_warm_up():
    assert make_learner(warmup=0).set_learning_rate(0) == pytest.approx(1e-3)


def test_the_encoder_has_its_own_learning_rate():
    frozen = make_learner(encoder_lr_scale=0.0)
    before = {name: p.clone() for name, p in frozen.model.named_parameters()}
    frozen.set_learning_rate(50)
    for seed in range(3):
        frozen.update(make_batch(seed))
    for name, parameter in frozen.model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("encoder.")


def test_gradients_are_clipped_to_the_configured_norm():
    learner = make_learner(grad_clip=1e-3)
    metrics = learner.update(make_batch())
    norm = torch.stack([p.grad.norm() for p in learner.trained]).norm()
    assert metrics["grad_norm"] > 1e-3
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_target_ensemble_follows_slowly():
    learner = make_learner(True, target_tau=0.25)
    online, target = learner.model.q_ensemble, learner.model.q_target
    assert all(
        torch.equal(a, b) for a, b in zip(online.parameters(), target.parameters(), strict=True)
    )
    learner.set_learning_rate(50)
    for step in range(3):
        before = [p.clone() for p in target.parameters()]
        learner.update(make_batch(step))
        moved = zip(before, online.parameters(), target.parameters(), strict=True)
        for old, fresh, new in moved:
            torch.testing.assert_close(new, 0.75 * old + 0.25 * fresh)
            assert not new.requires_grad


def test_prior_update_leaves_the_model_alone():
    learner = make_learner(True)
    learner.set_learning_rate(0)
    for group in learner.optimizer.param_groups:
        group["lr"] = 0.0
    before = {name: p.clone() for name, p in learner.model.named_parameters()}
    for seed in range(2):
        learner.update(make_batch(seed))
    changed = {
        name.split(".")[0]
        for name, p in learner.model.named_parameters()
        if not torch.equal(p, before[name])
    }
    assert changed == {"prior"}


def test_q_scale_follows_the_spread_of_values():
    learner = make_learner(True, target_tau=0.5)
    with torch.no_grad():
        learner.model.q_ensemble[-1].weight.normal_(std=3.0)
    learner.set_learning_rate(0)
    metrics = learner.update(make_batch())
    assert metrics["q_scale"].item() == learner.q_scale.item() > 1.0


def test_metrics_are_detached_scalars():
    metrics = make_learner(True).update(make_batch())
    assert set(metrics) == {
        "consistency_loss", "reward_loss", "value_loss", "grad_norm", "prior_loss", "q_scale",
        "prior_grad_norm", "latent_std", "latent_peak", "skipped_steps",
    }  # fmt: skip
    for value in metrics.values():
        assert value.shape == ()
        assert not value.requires_grad


def test_latent_statistics_tell_collapse_from_spread():
    learner = make_learner()
    batch = make_batch(size=64)
    spread = learner.update(batch)
    assert 1 / 8 < spread["latent_peak"] < 1
    assert spread["latent_std"] > 1e-3
    with torch.no_grad():
        for parameter in learner.model.encoder.parameters():
            parameter.zero_()
    assert learner.update(batch)["latent_std"] < 1e-6
    with torch.no_grad():
        learner.model.dynamics[-1].ln.weight.fill_(50.0)
    assert learner.update(batch)["latent_peak"] > 0.9


# --- numerical faults ----------------------------------------------------------------------------


def break_batch(batch: Batch, where: str, value: float) -> Batch:
    tensor = getattr(batch, where).clone()
    tensor[-1, 3] = value
    return batch._replace(**{where: tensor})


@pytest.mark.parametrize("q_and_prior", [False, True])
@pytest.mark.parametrize(
    ("where", "value"),
    [("obs", float("nan")), ("action", float("inf")), ("reward", float("nan")), ("obs", 1e38)],
)
def test_an_update_that_is_not_finite_changes_nothing_and_is_counted(q_and_prior, where, value):
    learner = make_learner(q_and_prior)
    for step in range(3):
        learner.set_learning_rate(step)
        learner.update(make_batch(step))
    before = flat_state(learner)
    for count in (1, 2):
        metrics = learner.update(break_batch(make_batch(9), where, value))
        assert metrics["skipped_steps"] == learner.skipped_in_a_row == count
    after = flat_state(learner)
    expected = {"random/cpu", "skipped/total", "skipped/in_a_row"} - set(
        () if q_and_prior else ("random/cpu",)
    )
    assert {name for name in after if not torch.equal(before[name], after[name])} == expected
    metrics = learner.update(make_batch(3))
    assert metrics["skipped_steps"] == 2
    assert learner.skipped_in_a_row == 0
    assert metrics["grad_norm"].isfinite()
    changed = [n for n, t in flat_state(learner).items() if not torch.equal(t, after[n])]
    assert len(changed) > len(after) / 2


def test_training_goes_on_from_a_skipped_update_as_if_it_had_not_been():
    disturbed, plain = make_learner(), make_learner()
    for step in range(4):
        for learner in (disturbed, plain):
            learner.set_learning_rate(step)
            learner.update(make_batch(step))
        disturbed.update(break_batch(make_batch(step), "obs", float("nan")))
    ours, theirs = flat_state(disturbed), flat_state(plain)
    assert ours.pop("skipped/total") == 4
    assert theirs.pop("skipped/total") == 0
    del ours["skipped/in_a_row"], theirs["skipped/in_a_row"]
    assert_same_state(ours, theirs)


def test_a_fault_of_the_prior_alone_spares_the_world_model():
    """Its Q-values overflow where the world model's own loss is finite."""
    learner = make_learner(True)
    learner.set_learning_rate(0)
    learner.update(make_batch())
    learner.q_scale.fill_(0.0)
    before = flat_state(learner)
    metrics = learner.update(make_batch(1))
    assert not metrics["prior_loss"].isfinite()
    assert metrics["skipped_steps"] == 1
    after = flat_state(learner)
    names = [name for name in before if not torch.equal(before[name], after[name])]
    assert any(name.startswith("model/encoder") for name in names)
    assert not any(part in name for name in names for part in ("prior", "q_target", "scale"))


@pytest.mark.parametrize("q_and_prior", [False, True])
def test_resuming_is_bit_exact(q_and_prior, tmp_path):
    def train(learner: WorldModelLearner, first: int, end: int) -> None:
        for step in range(first, end):
            learner.set_learning_rate(step)
            learner.update(make_batch(step))

    whole = make_learner(q_and_prior)
    train(whole, 0, 6)

    half = make_learner(q_and_prior)
    train(half, 0, 3)
    save_checkpoint(tmp_path / "half", KIND, half.tensors(), model_meta(half.model))

    torch.manual_seed(99)  # the stream must come from the checkpoint
    resumed = make_learner(q_and_prior, seed=7)
    resumed.load(load_checkpoint(tmp_path / "half", KIND))
    train(resumed, 3, 6)
    assert_same_state(flat_state(whole), flat_state(resumed))


def test_other_seeds_give_other_models():
    a, b = make_learner(seed=0), make_learner(seed=1)
    assert not torch.equal(a.model.encoder[0].weight, b.model.encoder[0].weight)


@pytest.mark.parametrize("q_and_prior", [False, True])
def test_a_saved_model_opens_frozen_and_equal(q_and_prior, tmp_path):
    learner = make_learner(q_and_prior)
    learner.update(make_batch())
    learner.model.obs_mean.normal_()
    meta = model_meta(learner.model)
    save_checkpoint(tmp_path / "model", KIND, learner.tensors(), meta)
    model = load_world_model(tmp_path / "model")
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.suite.tasks == SUITE.tasks
    assert model.has_q == q_and_prior
    batch = make_batch(5)
    z = model.encode(batch.obs[:-1], batch.task)
    torch.testing.assert_close(z, learner.model.encode(batch.obs[:-1], batch.task))
    ours = learner.model.reward(z, batch.action, batch.task)
    torch.testing.assert_close(model.reward(z, batch.action, batch.task), ours)
