"""Tasks of Gymnasium that end when the robot falls, from random data to a policy."""

from __future__ import annotations

import json

import pytest

from pwm.evaluation.evaluate import EvaluateConfig, evaluate
from pwm.extraction.config import ActorCriticConfig, ExtractConfig
from pwm.extraction.extract import extract
from pwm.models.world_model import ModelSize, load_world_model
from pwm.pretraining.config import HorizonSchedule, PretrainConfig
from pwm.pretraining.pretrain import pretrain
from pwm.simulation.collect import collect
from pwm.simulation.collect_config import CollectConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TASK = """
name: {name}
env_id: {env_id}
obs_dim: {obs_dim}
action_dim: {action_dim}
episode_length: 1000
score: {{min: 0, max: 3000}}
"""


@pytest.mark.parametrize(
    ("env_id", "obs_dim", "action_dim"), [("Hopper-v5", 11, 3), ("Walker2d-v5", 17, 6)]
)
def test_falls_are_learned_and_policies_stay_up_longer(tmp_path, env_id, obs_dim, action_dim):
    name = env_id.lower()
    file = tmp_path / "task.yaml"
    sizes = {"obs_dim": obs_dim, "action_dim": action_dim}
    file.write_text(TASK.format(name=name, env_id=env_id, **sizes))
    data = collect(
        CollectConfig(str(tmp_path / "data"), str(file), 600, workers=1, behaviour="random")
    )
    run = pretrain(
        PretrainConfig(
            data=str(data),
            out=str(tmp_path / "world_model"),
            model=ModelSize(mlp_dim=256, latent_dim=128, task_dim=16, num_q=2),
            device="cpu",
            steps=1000,
            batch_size=128,
            lr=1e-3,
            lr_final=1e-4,
            warmup=50,
            horizon=HorizonSchedule([4], [0.0]),
        )
    )
    assert load_world_model(run).episodic
    report = json.loads((run / "diagnostics.json").read_text())["tasks"][name]["termination"]
    assert report["at_ends"] > 10 * report["elsewhere"], report
    policies = extract(
        ExtractConfig(
            checkpoint=str(run),
            data=str(data),
            out=str(tmp_path / "policies"),
            device="cpu",
            pool=4096,
            learner=ActorCriticConfig(iterations=200, batch_size=128, horizon=8),
        )
    )
    (metrics,) = policies.glob("groups/*/metrics.jsonl")
    first, *_, last = (json.loads(line) for line in metrics.read_text().splitlines())
    assert last[f"{name}/imagined_survival"] > first[f"{name}/imagined_survival"]
    results = evaluate(
        EvaluateConfig(
            policy=str(policies), data=str(data), out=str(tmp_path / "evaluation"),
            baselines=["random"], episodes=20, workers=1, device="cpu",
        )
    )  # fmt: skip
    found = results.policy.tasks[name].episode_return
    random = results.baselines["random"].tasks[name].episode_return
    assert found > 1.3 * random, (found, random)
