from __future__ import annotations

import pytest
import torch

from pwm.adaptation.new_tasks import widened
from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task
from pwm.models.widening import widened_state
from pwm.models.world_model import ModelSize, WorldModel

SMALL, LARGE = Task("small", "dmcontrol", 3, 1, 20), Task("large", "metaworld", 5, 2, 20)
ROBOT = Task("robot", "gymnasium", 9, 4, 20, 1, "Robot-v0", "{}", 0.0, 1.0)
TINY = Task("tiny", "gymnasium", 2, 1, 20, 1, "Tiny-v0", "{}", 0.0, 1.0)
SIZE = ModelSize(encoder_dim=24, mlp_dim=32, latent_dim=16, task_dim=6, num_q=2, num_bins=11)


def old_model(q_and_prior: bool = True, size: ModelSize = SIZE) -> WorldModel:
    torch.manual_seed(0)
    suite = Suite("pair", (SMALL, LARGE))
    model = WorldModel(size, suite, q_and_prior, normalize_obs=True, episodic=True)
    with torch.no_grad():
        for tensor in (*model.parameters(), model.obs_mean):
            tensor.add_(0.3 * torch.randn_like(tensor))
        model.obs_scale.add_(torch.rand_like(model.obs_scale))
    return model.eval().requires_grad_(False)


def outputs(model: WorldModel) -> dict[str, torch.Tensor]:
    """What a model says of old tasks, the actions and observations padded as it has them."""
    generator = torch.Generator().manual_seed(1)
    task = torch.tensor([0, 1] * 8)
    obs, action = torch.zeros(16, model.suite.obs_dim), torch.zeros(16, model.suite.action_dim)
    obs[:, :3] = torch.randn(16, 3, generator=generator)
    action[:, 0] = torch.rand(16, generator=generator)
    z = model.encode(obs, task)
    mean, log_std = model.policy_prior(z, task)
    return {
        "latent": z,
        "next": model.next(z, action, task),
        "reward": model.reward_logits(z, action, task),
        "q": model.q_logits(z, action, task),
        "target q": model.target_q_logits(z, action, task),
        "prior mean": mean[:, :2],
        "prior deviation": log_std[:, :2],
        "termination": model.termination_logits(z, task),
    }


@pytest.mark.parametrize("new", [(ROBOT,), (TINY,), (TINY, ROBOT)])
def test_old_tasks_are_predicted_bit_for_bit_as_before(new):
    model = old_model()
    wide = widened(model, Suite("more", (SMALL, LARGE, *new)))
    assert wide.suite.obs_dim == max(5, *(task.obs_dim for task in new))
    for name, value in outputs(wide).items():
        assert torch.equal(value, outputs(model)[name]), name


def test_each_tensor_grows_where_it_is_to():
    before, after = Suite("a", (SMALL,)), Suite("b", (SMALL, LARGE))
    state = {
        "encoder.0.weight": torch.tensor([[1.0, 2, 3, 8, 9]]),  # 3 observations, embedding of 2
        "dynamics.0.weight": torch.tensor([[1.0, 2]]),
        "prior.2.bias": torch.tensor([1.0, 2]),
        "prior.2.weight": torch.tensor([[1.0], [2]]),
        "task_emb.weight": torch.tensor([[4.0, 5]]),
        "obs_scale": torch.tensor([[2.0, 2, 2]]),
        "reward_head.2.bias": torch.ones(1),
    }
    wide = widened_state(state, before, after)
    assert wide["encoder.0.weight"].tolist() == [[1, 2, 3, 0, 0, 8, 9]]
    assert wide["dynamics.0.weight"].tolist() == [[1, 2, 0]]
    assert wide["prior.2.bias"].tolist() == [1, 0, 2, 0]
    assert wide["prior.2.weight"].tolist() == [[1], [0], [2], [0]]
    assert wide["task_emb.weight"].tolist() == [[4, 5], [0, 0]]
    assert wide["obs_scale"].tolist() == [[2, 2, 2, 1, 1], [1, 1, 1, 1, 1]]
    assert wide["reward_head.2.bias"] is state["reward_head.2.bias"]


def test_a_model_without_embeddings_is_refused():
    size = ModelSize(encoder_dim=8, mlp_dim=8, latent_dim=8, task_dim=0, num_bins=11)
    model = WorldModel(size, Suite("small", (SMALL,)))
    with pytest.raises(PwmError, match="no task embeddings"):
        widened(model, Suite("more", (SMALL, ROBOT)))
