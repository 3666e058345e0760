from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from calls import before_call, terminate

from pwm.adaptation.adapt import adapt
from pwm.adaptation.config import AdaptConfig
from pwm.adaptation.errors import error_table
from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task
from pwm.data.episode import Episode
from pwm.data.store import EpisodeStore
from pwm.models.world_model import load_world_model
from pwm.multitask.finetuning import Finetuning
from pwm.pretraining.config import HorizonSchedule
from pwm.pretraining.learner import WorldModelLearner
from pwm.pretraining.normalization import observation_moments
from pwm.runtime.checkpoint import load_checkpoint
from pwm.runtime.training_checkpoints import list_steps


def test_the_table_of_errors_counts_one_and_has_no_negative_zero():
    errors = {"walker-run": {"loss": -1e-9, "latent_error": {"1": 0.5}, "reward_r2": {"1": -1e-4}}}
    table = error_table({"start": errors}, {"before": errors})
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["walker-run", "1 old task, mean"]
    assert [column[0] for column in cells[2:]] == ["0.000", "0.500", "0.000"]


ROBOT = Task("robot", "gymnasium", 8, 3, 30, 1, "Robot-v0", "{}", 0.0, 1.0)


@pytest.fixture(scope="module")
def robot(tmp_path_factory) -> Path:
    """Episodes of a robot that is larger than any task of the toy data."""
    path = tmp_path_factory.mktemp("robot") / "data"
    rng = np.random.default_rng(0)
    push = rng.standard_normal((ROBOT.obs_dim, ROBOT.action_dim))
    with EpisodeStore.create(path, Suite("robot", (ROBOT,))) as store:
        store.add_source("made up", {"whole_episodes": True})
        for seed in range(6):
            action = np.clip(rng.normal(0, 0.5, (30, ROBOT.action_dim)), -1, 1)
            obs = np.zeros((31, ROBOT.obs_dim))
            for t in range(30):
                obs[t + 1] = 0.9 * obs[t] + 0.4 * push @ action[t]
            reward, false = np.exp(-np.square(obs[1:, 7])), np.zeros(30, bool)
            values = (x.astype(np.float32) for x in (obs, action, reward))
            store.append("robot", [Episode(*values, false, false, "made up", seed)], "made up")
    return path


@pytest.fixture
def config(robot, toy, toy_world_model, tmp_path) -> AdaptConfig:
    return AdaptConfig(
        task="robot", data=str(robot), checkpoint=str(toy_world_model), out=str(tmp_path / "out"),
        device="cpu", embedding_steps=10, steps=30, lr=3e-3, batch_size=16, log_every=10,
        warmup=2, horizon=HorizonSchedule([4], [0.0]), save_every=8,
    )  # fmt: skip


def newest(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(list_steps(run / "checkpoints")[-1], "world_model").tensors["model"]


def report(config: AdaptConfig) -> dict:
    return json.loads((Path(config.out) / "adaptation.json").read_text())


def test_a_new_robot_is_learned_and_old_tasks_are_kept(config, toy, capsys):
    config.old_data, config.replay = str(toy.data), 0.5
    adapt(config)
    found = report(config)
    losses = [found["new_tasks"][s]["robot"]["loss"] for s in ("start", "embedding", "finetuned")]
    assert losses[2] < 0.8 * losses[0] and losses[1] < 1.05 * losses[0]
    ranking = [entry["loss"] for entry in found["embeddings"]["robot"]]
    assert ranking == sorted(ranking) and ranking[0] == pytest.approx(losses[0], rel=0.5)
    assert {entry["embedding_of"] for entry in found["embeddings"]["robot"]} == set(toy.tasks)
    assert set(found["old_tasks"]) == {"before", "after"}
    assert set(found["old_tasks"]["after"]) == set(found["most_forgotten"]) == set(toy.tasks)
    printed = capsys.readouterr().err
    assert "robot begins with the embedding of" in printed and "2 old tasks, mean" in printed
    model = load_world_model(config.out)
    assert model.suite.names == (*toy.tasks, "robot")
    assert (model.suite.obs_dim, model.suite.action_dim) == (8, 3)
    mean, scale = observation_moments(EpisodeStore.open(config.data))
    assert torch.equal(model.obs_mean[2], torch.as_tensor(mean[0]))
    assert torch.equal(model.obs_scale[2], torch.as_tensor(scale[0]))


def test_a_task_begins_with_the_embedding_that_is_named(config, toy):
    config.finetune, config.embedding_lr, config.embedding_steps = "none", 0.0, 1
    starts = {}
    for config.embedding_of in (*toy.tasks, None):
        config.out = f"{config.out}_{config.embedding_of}"
        adapt(config)
        table = load_world_model(config.out).task_emb.weight
        starts[config.embedding_of] = int((table[:2] == table[2]).all(1).nonzero())
    assert [starts[name] for name in toy.tasks] == [0, 1]
    best = report(config)["embeddings"]["robot"][0]["embedding_of"]
    assert starts[None] == toy.tasks.index(best)


@pytest.mark.parametrize("finetune", ["none", "lora"])
def test_what_does_not_train_keeps_old_tasks(finetune, config, toy, toy_world_model):
    """Bit for bit where the embedding alone trains; LoRA changes no tensor of the base."""
    config.finetune, config.old_data = finetune, str(toy.data)
    before = newest(toy_world_model)
    adapt(config)
    assert all(torch.equal(t, before[name]) for name, t in newest(toy_world_model).items())
    found = report(config)
    if finetune == "none":
        assert found["old_tasks"]["after"] == found["old_tasks"]["before"]
        return
    own = newest(Path(config.out))
    small = {"task_emb.weight", "obs_mean", "obs_scale"}
    assert all(name in small or "delta" in name for name in own)
    assert torch.equal(own["task_emb.weight"][:2], before["task_emb.weight"])
    losses = [found["new_tasks"][s]["robot"]["loss"] for s in ("embedding", "finetuned")]
    assert losses[1] < losses[0]


def test_interrupted_and_resumed_equals_uninterrupted(config, toy, tmp_path, monkeypatch):
    """In both stages; of units that were chosen, with old data that fade."""
    config.old_data, config.finetune = str(toy.data), "adaptive"
    config.embedding_steps, config.steps = 6, 14
    config.replay, config.finetuning = 0.25, Finetuning(windows=8, part=0.5)
    adapt(config)
    whole, config.out = Path(config.out), str(tmp_path / "stopped")
    before_call(monkeypatch, WorldModelLearner, "update", terminate, 4, 16)
    for _ in range(2):
        with pytest.raises(BaseException, match="the same command goes on from there"):
            adapt(config)
    adapt(config)
    expected, found = newest(whole), newest(Path(config.out))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert report(config) == json.loads((whole / "adaptation.json").read_text())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"task": "walker-run"}, "walker-run"),
        ({"finetune": "diminish"}, "finetune=diminish needs data of tasks that the world model"),
        ({"replay": 0.1}, "give them as old_data="),
        ({"embedding_steps": 0}, "embedding_steps"),
        (
            {"embedding_of": "walker"},
            "embedding_of=walker is no task of .* or null for the one with",
        ),
    ],
)
def test_mistakes_are_one_sentence(settings, sentence, config):
    for name, value in settings.items():
        setattr(config, name, value)
    with pytest.raises(PwmError, match=sentence):
        adapt(config)


def test_a_known_task_is_refused(config, toy):
    config.task, config.data = toy.tasks[0], str(toy.data)
    with pytest.raises(PwmError, match="knows task 'reacher-easy' already; fine-tune it by"):
        adapt(config)


def test_the_command_says_what_it_needs(capsys):
    assert main(["adapt", "task=robot"]) == 1
    assert "data" in capsys.readouterr().err
