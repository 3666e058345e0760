from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from pwm.cli.main import config_directory
from pwm.core.suites import SUITES, Suite, Task
from pwm.data.windows.sampler import Batch
from pwm.models.world_model import ModelSize, WorldModel, model_meta
from pwm.pretraining.losses import (
    LossWeights,
    PriorNoise,
    prior_loss,
    roll_out,
    total_loss,
    value_loss,
    world_model_loss,
)

NARROW = Task("narrow", "dmcontrol", 3, 1, 20)
WIDE = Task("wide", "metaworld", 5, 2, 20)
SUITE = Suite("pair", (NARROW, WIDE))
SIZE = ModelSize(
    encoder_dim=12, mlp_dim=16, latent_dim=16, task_dim=4, num_q=3, num_bins=11, vmin=-2, vmax=2
)
H, B = 3, 4


def make_model(q_and_prior: bool = True, normalize_obs: bool = False, **changes) -> WorldModel:
    """A model in float64 whose every parameter matters (fresh heads are zero)."""
    torch.manual_seed(0)
    size = ModelSize(**{**vars(SIZE), **changes})
    model = WorldModel(size, SUITE, q_and_prior, normalize_obs).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def make_batch(seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    task = torch.tensor([0, 0, 1, 1])
    obs, action = normal(H + 1, B, 5), normal(H, B, 2).clamp(-1, 1)
    obs[:, :2, 3:] = 0
    action[:, :2, 1:] = 0
    return Batch(obs, action, 3 * normal(H, B), task)


# --- sizes ---------------------------------------------------------------------------------------

# Encoder width, hidden encoder layers, MLP width, latent, members of the Q ensemble: as published.
PUBLISHED = {
    "1M": (256, 1, 384, 128, 2),
    "5M": (256, 1, 512, 512, 5),
    "19M": (1024, 2, 1024, 768, 5),
    "48M": (1792, 3, 1792, 768, 5),
    "317M": (4096, 4, 4096, 1376, 8),
}
OURS = {"1B": (7168, 5, 7168, 2048, 8)}


def published_parameters(name: str, tasks: int, obs: int, action: int, task_dim: int) -> int:
    """Parameters of the published layout, from its table of layers (without the target copy)."""
    encoder_width, encoder_layers, width, latent, members = (PUBLISHED | OURS)[name]

    def linear(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    def normed(inputs: int, outputs: int) -> int:
        return linear(inputs, outputs) + 2 * outputs  # LayerNorm's weight and bias

    encoder = normed(obs + task_dim, encoder_width)
    encoder += (encoder_layers - 1) * normed(encoder_width, encoder_width)
    encoder += normed(encoder_width, latent)
    joint = latent + task_dim + action
    trunk = normed(joint, width) + normed(width, width)
    dynamics = trunk + normed(width, latent)
    reward = trunk + linear(width, 101)
    prior = normed(latent + task_dim, width) + normed(width, width) + linear(width, 2 * action)
    value = members * (trunk + linear(width, 101))
    return tasks * task_dim + encoder + dynamics + reward + prior + value


def configured_size(name: str, **changes: int) -> ModelSize:
    settings = OmegaConf.load(config_directory() / "model" / f"{name}.yaml")
    assert settings["num_q"] == (PUBLISHED | OURS)[name][-1]
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelSize), settings, changes))


@pytest.mark.parametrize("suite", ["mt30", "mt80"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_those_of_the_published_layout(name, suite):
    task_dim = 64 if suite == "mt30" and name in ("5M", "19M", "48M") else 96
    latent = 512 if suite == "mt30" and name == "19M" else PUBLISHED[name][3]
    with torch.device("meta"):
        size = configured_size(name, task_dim=task_dim)
        model = WorldModel(size, SUITES[suite], q_and_prior=True)
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        target = sum(p.numel() for p in model.q_target.parameters())
    sizes = (30, 24, 6) if suite == "mt30" else (80, 39, 6)
    assert count == published_parameters(name, *sizes, task_dim)
    members = PUBLISHED[name][-1]
    assert target == sum(p.numel() for p in model.q_ensemble.parameters())
    assert model.q_ensemble[0].weight.shape[0] == members
    assert count == pytest.approx(1e6 * float(name[:-1]), rel=0.5)
    assert latent % size.simnorm_dim == 0


def test_1b_carries_on_the_published_ratios():
    with torch.device("meta"):
        size = configured_size("1B")
        model = WorldModel(size, SUITES["mt80"], q_and_prior=True)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == published_parameters("1B", 80, 39, 6, 96) == 977_714_585
    before, large = configured_size("48M"), configured_size("317M")
    assert size.encoder_dim == size.mlp_dim and large.encoder_dim == large.mlp_dim
    assert (
        size.encoder_layers - large.encoder_layers == large.encoder_layers - before.encoder_layers
    )
    growth = math.log(large.latent_dim / before.latent_dim, large.mlp_dim / before.mlp_dim)
    carried_on = large.latent_dim * (size.mlp_dim / large.mlp_dim) ** growth
    assert size.latent_dim == pytest.approx(carried_on, rel=0.01)
    assert (size.num_q, size.task_dim) == (large.num_q, large.task_dim)


def test_every_model_preset_is_a_published_one_or_ours():
    names = {path.stem for path in Path(config_directory() / "model").glob("*.yaml")}
    assert names == {*PUBLISHED, *OURS, "tiny"}


def test_tiny_is_as_small_as_its_comment_says():
    settings = OmegaConf.load(config_directory() / "model" / "tiny.yaml")
    size = OmegaConf.merge(OmegaConf.structured(ModelSize), settings)
    model = WorldModel(OmegaConf.to_object(size), SUITES["quick"])
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(0.3e6, rel=0.2)


# --- shapes and masks ----------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [(), (B,), (H, B), (2, H, B)])
def test_shapes_for_any_leading_dimensions(lead):
    model = make_model()
    task = torch.randint(2, lead[-1:])
    obs = torch.randn(*lead, 5, dtype=torch.float64)
    action = torch.randn(*lead, 2, dtype=torch.float64)
    z = model.encode(obs, task)
    assert z.shape == (*lead, 16)
    assert model.next(z, action, task).shape == (*lead, 16)
    assert model.reward_logits(z, action, task).shape == (*lead, 11)
    assert model.symlog_reward(z, action, task).shape == lead
    assert model.reward(z, action, task).shape == (*lead, 1)
    assert model.q_logits(z, action, task).shape == (3, *lead, 11)
    assert model.target_q_logits(z, action, task).shape == (3, *lead, 11)
    assert model.q(z, action, task).shape == (3, *lead, 1)
    mean, log_std = model.policy_prior(z, task)
    assert mean.shape == log_std.shape == (*lead, 2)


def test_time_first_input_is_the_same_as_step_by_step():
    model, batch = make_model(), make_batch()
    whole = model.encode(batch.obs, batch.task)
    for t in range(H + 1):
        for b in range(B):
            one = model.encode(batch.obs[t, b], batch.task[b])
            torch.testing.assert_close(whole[t, b], one)


def test_latents_are_simplices():
    model, batch = make_model(), make_batch()
    z = model.encode(batch.obs, batch.task)
    for latent in (z, model.next(z[:-1], batch.action, batch.task)):
        groups = latent.unflatten(-1, (-1, 8))
        assert groups.min() > 0
        torch.testing.assert_close(groups.sum(-1), torch.ones_like(groups[..., 0]))


def test_task_embeddings_have_norm_at_most_one():
    model = make_model()
    with torch.no_grad():
        model.task_emb.weight[0] = torch.tensor([3.0, 0, 4, 0])
        model.task_emb.weight[1] = torch.tensor([0.1, 0.2, 0, 0])
    embedding = model.task_embedding(torch.tensor([0, 1]))
    wanted = torch.tensor([[0.6, 0, 0.8, 0], [0.1, 0.2, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(embedding, wanted)
    assert model.task_emb.weight[0].norm() == 5  # the stored one is left alone


def test_task_decides_every_output():
    model = make_model()
    z, action = torch.rand(16).double(), torch.rand(2).double()
    first, second = torch.tensor(0), torch.tensor(1)
    obs = torch.rand(5).double()
    assert not torch.allclose(model.encode(obs, first), model.encode(obs, second))
    for function in (model.next, model.reward_logits, model.q_logits):
        assert not torch.allclose(function(z, action, first), function(z, action, second))


def test_input_order_is_latent_then_embedding_then_action():
    model = make_model()
    z, action, task = torch.rand(16).double(), torch.rand(2).double(), torch.tensor(1)
    joint = torch.cat([z, model.task_embedding(task), action])
    torch.testing.assert_close(model.next(z, action, task), model.dynamics(joint))
    obs = torch.rand(5).double()
    joint = torch.cat([obs, model.task_embedding(task)])
    torch.testing.assert_close(model.encode(obs, task), model.encoder(joint))


def test_a_single_task_model_needs_no_embedding():
    torch.manual_seed(0)
    size = ModelSize(**{**vars(SIZE), "task_dim": 0})
    model = WorldModel(size, Suite("one", (WIDE,)), q_and_prior=True)
    assert not any("task_emb" in name for name, _ in model.named_parameters())
    task = torch.zeros(B, dtype=torch.long)
    z = model.encode(torch.rand(H, B, 5), task)
    assert model.next(z, torch.rand(H, B, 2), task).shape == (H, B, 16)
    assert model.sample_prior(z, task, torch.randn(H, B, 2))[0].shape == (H, B, 2)


def test_unused_action_dimensions_are_masked():
    model = make_model()
    assert model.action_mask.tolist() == [[1, 0], [1, 1]]
    z, task = torch.rand(B, 16).double(), torch.tensor([0, 0, 1, 1])
    mean, log_std = model.policy_prior(z, task)
    action, log_prob = model.sample_prior(z, task, torch.randn(B, 2).double())
    for tensor in (mean, log_std, action):
        assert tensor[:2, 1].eq(0).all()
        assert tensor[2:].ne(0).all()
    assert log_prob.shape == (B,)


def test_reward_is_the_expectation_over_bins_in_environment_units():
    model = make_model()
    z, action, task = torch.rand(B, 16).double(), torch.rand(B, 2).double(), torch.arange(B) % 2
    logits = model.reward_logits(z, action, task)
    for b in range(B):
        weights = [math.exp(x) for x in logits[b].tolist()]
        centers = [-2 + 0.4 * i for i in range(11)]
        mean = sum(w * c for w, c in zip(weights, centers, strict=True)) / sum(weights)
        assert model.symlog_reward(z, action, task)[b].item() == pytest.approx(mean, rel=1e-5)
        real = math.copysign(math.expm1(abs(mean)), mean)
        assert model.reward(z, action, task)[b, 0].item() == pytest.approx(real, rel=1e-5)


def test_fresh_reward_and_value_heads_predict_zero():
    model = WorldModel(SIZE, SUITE, q_and_prior=True)
    task, action = torch.arange(B) % 2, torch.rand(B, 2)
    z = model.encode(torch.rand(B, 5), task)
    assert model.reward(z, action, task).abs().max() < 1e-6
    assert model.q(z, action, task).abs().max() < 1e-6


def test_observations_are_normalized_per_task():
    model = make_model(normalize_obs=True)
    model.obs_mean[0], model.obs_scale[0] = 2.0, 4.0
    model.obs_mean[1], model.obs_scale[1] = -1.0, 0.5
    plain = make_model()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "obs_" not in k})
    batch = make_batch()
    moved = torch.cat([(batch.obs[:, :2] - 2) / 4, (batch.obs[:, 2:] + 1) / 0.5], 1)
    expected = plain.encode(moved, batch.task)
    torch.testing.assert_close(model.encode(batch.obs, batch.task), expected)


def test_meta_holds_what_rebuilds_the_model():
    meta = model_meta(make_model(normalize_obs=True))
    assert meta["size"] == vars(SIZE)
    assert (meta["q_and_prior"], meta["normalize_obs"]) == (True, True)
    assert [task["name"] for task in meta["suite"]["tasks"]] == ["narrow", "wide"]


# --- losses against straightforward loops --------------------------------------------------------


def two_hot_loop(x: float) -> list[float]:
    value = min(max(math.copysign(math.log(1 + abs(x)), x), -2.0), 2.0)
    encoded = [0.0] * 11
    position = (value + 2) / 0.4
    lower = min(int(position), 9)
    encoded[lower], encoded[lower + 1] = lower + 1 - position, position - lower
    return encoded


def cross_entropy_loop(logits: Tensor, target: float) -> Tensor:
    log_probability = logits - torch.logsumexp(logits, 0)
    return -sum(w * x for w, x in zip(two_hot_loop(target), log_probability, strict=True))


def scalar_value(logits: Tensor) -> float:
    centers = torch.linspace(-2, 2, 11, dtype=torch.float64)
    mean = ((logits.exp() / logits.exp().sum()) @ centers).item()
    return math.copysign(math.exp(abs(mean)) - 1, mean)


@pytest.mark.parametrize("rho", [0.5, 0.99, 1.0])
def test_world_model_loss_equals_a_direct_loop(rho):
    model, batch = make_model(), make_batch()
    consistency = reward = torch.zeros((), dtype=torch.float64)
    for b in range(B):
        task = batch.task[b]
        z = model.encode(batch.obs[0, b], task)
        for t in range(H):
            logits = model.reward_logits(z, batch.action[t, b], task)
            z = model.next(z, batch.action[t, b], task)
            target = model.encode(batch.obs[t + 1, b], task).detach()
            weight = rho**t / (H * B)
            consistency = consistency + weight * ((z - target) ** 2).sum() / 16
            error = cross_entropy_loop(logits, batch.reward[t, b].item())
            reward = reward + weight * error
    wanted = 20 * consistency + 0.1 * reward
    terms = world_model_loss(model, batch, roll_out(model, batch), rho)
    loss, windows = total_loss(terms, LossWeights())
    for name, value in (("consistency", consistency), ("reward", reward)):
        torch.testing.assert_close(terms[name].mean, value, rtol=1e-5, atol=0)
        torch.testing.assert_close(terms[name].windows.mean(), value, rtol=1e-5, atol=0)
    torch.testing.assert_close(windows.mean(), wanted.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=0)
    parameters = [*model.encoder.parameters(), *model.dynamics.parameters()]
    parameters += [*model.reward_head.parameters(), model.task_emb.weight]
    gradients = torch.autograd.grad(loss, parameters)
    wanted_gradients = torch.autograd.grad(wanted, parameters)
    for ours, theirs in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_loss_weights_scale_the_parts():
    model, batch = make_model(), make_batch()
    rollout = roll_out(model, batch)
    weights = LossWeights(consistency=3.0, reward=7.0)
    terms = world_model_loss(model, batch, rollout, 0.9)
    loss, _ = total_loss(terms, weights)
    torch.testing.assert_close(loss, 3 * terms["consistency"].mean + 7 * terms["reward"].mean)


def test_weights_of_windows_weigh_the_loss_and_not_what_is_reported():
    model, batch = make_model(), make_batch()
    terms = world_model_loss(model, batch, roll_out(model, batch), 0.9)
    plain, windows = total_loss(terms, LossWeights())
    of_windows = torch.arange(B, dtype=torch.float64)
    loss, reported = total_loss(terms, LossWeights(), of_windows)
    torch.testing.assert_close(reported, windows)
    torch.testing.assert_close(loss.detach(), (of_windows * windows).mean())
    same, _ = total_loss(terms, LossWeights(), torch.ones(B, dtype=torch.float64))
    torch.testing.assert_close(same, plain)


def test_consistency_targets_pass_no_gradient():
    model, batch = make_model(), make_batch()
    batch.obs.requires_grad_(True)
    terms = world_model_loss(model, batch, roll_out(model, batch), 0.9)
    loss, _ = total_loss(terms, LossWeights())
    (gradient,) = torch.autograd.grad(loss, batch.obs)
    assert gradient[0].ne(0).any()
    assert gradient[1:].eq(0).all()


def make_noise(seed: int = 2) -> PriorNoise:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(H, B, 2, generator=generator, dtype=torch.float64)
    policy = torch.randn(H + 1, B, 2, generator=generator, dtype=torch.float64)
    return PriorNoise(target, policy, torch.tensor([2, 0, 1, 2]))


def prior_loop(model: WorldModel, z: Tensor, task: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """An action of the prior and its log-probability, by torch's own distributions."""
    used = SUITE.tasks[int(task)].action_dim
    output = model.prior(torch.cat([z, model.task_embedding(task)]))
    mean, raw = output[:2][:used], output[2:][:used]
    std = (-10 + 6 * (torch.tanh(raw) + 1)).exp()
    action = torch.tanh(mean + noise[:used] * std)
    squashed = TransformedDistribution(Normal(mean, std), TanhTransform(cache_size=0))
    return F.pad(action, (0, 2 - used)), squashed.log_prob(action).sum()


def test_sampled_prior_actions_and_log_probabilities():
    model, noise = make_model(), make_noise()
    z, task = torch.rand(B, 16).double(), torch.tensor([0, 0, 1, 1])
    action, log_prob = model.sample_prior(z, task, noise.target[0])
    for b in range(B):
        wanted, wanted_log_prob = prior_loop(model, z[b], task[b], noise.target[0, b])
        torch.testing.assert_close(action[b], wanted)
        torch.testing.assert_close(log_prob[b], wanted_log_prob, rtol=1e-6, atol=1e-6)


def test_value_loss_equals_a_direct_loop():
    model, batch, noise = make_model(), make_batch(), make_noise()
    discount, rho = torch.tensor([0.99, 0.99, 0.95, 0.95], dtype=torch.float64), 0.8
    rollout = roll_out(model, batch)
    total = torch.zeros((), dtype=torch.float64)
    for t in range(H):
        for b in range(B):
            task = batch.task[b]
            with torch.no_grad():
                z_next = model.encode(batch.obs[t + 1, b], task)
                action, _ = prior_loop(model, z_next, task, noise.target[t, b])
                logits = model.target_q_logits(z_next, action, task)
                least = min(scalar_value(logits[2]), scalar_value(logits[0]))
            target = batch.reward[t, b].item() + discount[b].item() * least
            predicted = model.q_logits(rollout.latents[t, b], batch.action[t, b], task)
            for member in predicted:
                total = total + rho**t * cross_entropy_loop(member, target) / (H * B * 3)
    loss = value_loss(model, batch, rollout, discount, rho, noise)
    torch.testing.assert_close(loss.mean, total, rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.windows.mean(), total, rtol=1e-5, atol=0)


def test_value_loss_reaches_neither_its_targets_nor_the_prior():
    model, batch, noise = make_model(), make_batch(), make_noise()
    model.q_target.requires_grad_(True)
    discount = torch.full((B,), 0.9, dtype=torch.float64)
    loss = value_loss(model, batch, roll_out(model, batch), discount, 0.9, noise)
    loss.mean.backward()
    for frozen in (model.q_target, model.prior):
        assert all(p.grad is None or p.grad.eq(0).all() for p in frozen.parameters())
    for trained in (model.q_ensemble, model.encoder, model.dynamics):
        assert any(p.grad is not None and p.grad.ne(0).any() for p in trained.parameters())


def test_prior_loss_equals_a_direct_loop():
    model, batch, noise = make_model(), make_batch(), make_noise()
    rollout, rho = roll_out(model, batch), 0.7
    scale = torch.tensor(2.5, dtype=torch.float64)
    total = 0.0
    first = torch.zeros(B, dtype=torch.float64)
    for t in range(H + 1):
        for b in range(B):
            task, z = batch.task[b], rollout.latents[t, b].detach()
            action, log_prob = prior_loop(model, z, task, noise.policy[t, b])
            logits = model.q_logits(z, action, task)
            q = (scalar_value(logits[1]) + scalar_value(logits[2])) / 2
            if t == 0:
                first[b] = q
            total += rho**t * (1e-4 * log_prob.item() - q / 2.5) / ((H + 1) * B)
    loss, q = prior_loss(model, rollout, batch.task, scale, rho, noise)
    assert loss.item() == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(q, first, rtol=1e-5, atol=1e-7)
    assert not q.requires_grad


def test_prior_loss_leaves_latents_alone_and_moves_the_prior_uphill():
    model, batch, noise = make_model(), make_batch(), make_noise()
    rollout, scale = roll_out(model, batch), torch.ones((), dtype=torch.float64)
    loss, _ = prior_loss(model, rollout, batch.task, scale, 1.0, noise, entropy_weight=0.0)
    encoder = next(model.encoder.parameters())
    assert torch.autograd.grad(loss, encoder, retain_graph=True, allow_unused=True) == (None,)
    parameters = list(model.prior.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 0.05 * gradient
    better, _ = prior_loss(model, rollout, batch.task, scale, 1.0, noise, entropy_weight=0.0)
    assert better < loss
