"""Expected scores of policies of a system whose returns are known, and of saved policies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task
from pwm.data.episode import Episode
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore
from pwm.extraction.behavior_cloning import CloningConfig, clone
from pwm.extraction.config import ExtractConfig
from pwm.extraction.estimate_settings import ScoreEstimateConfig
from pwm.extraction.expected_scores import Calibration, ScoreEstimator
from pwm.extraction.recorded_steps import RecordedSteps

LENGTH, EPISODES = 12, 30
TASK = Task("a", "gymnasium", 1, 1, LENGTH, env_id="X", score_min=0.0, score_max=float(LENGTH))
CONFIG = ScoreEstimateConfig(members=6, features=24, rows=EPISODES * LENGTH, ridge=1e-4)


def moved(obs: Tensor, action: Tensor) -> Tensor:
    """The next state of a linear system."""
    return 0.8 * obs + 0.3 * action


def reward(obs: Tensor) -> Tensor:
    return torch.exp(-((obs - 1) ** 2)).squeeze(-1)


def played(act, start: Tensor, noise: float = 0.0, seed: int = 0):
    """(m, T, ...) observations, actions and rewards of episodes from starts (m, 1)."""
    generator = torch.Generator().manual_seed(seed)
    obs, actions, rewards = [start], [], []
    for _ in range(LENGTH):
        action = act(obs[-1]) + noise * torch.randn(start.shape, generator=generator)
        actions.append(action.clamp(-1, 1))
        obs.append(moved(obs[-1], actions[-1]))
        rewards.append(reward(obs[-1]))
    return torch.stack(obs, 1), torch.stack(actions, 1), torch.stack(rewards, 1)


def recorded(seed: int) -> RecordedSteps:
    """Episodes of behaviours from bad to good."""
    start = torch.randn(EPISODES, 1, generator=torch.Generator().manual_seed(100 + seed))
    push = torch.linspace(-0.6, 0.6, EPISODES).unsqueeze(-1)
    obs, action, gained = played(lambda _: push, start, noise=0.4, seed=seed)
    later = torch.cat([action[:, 1:], torch.zeros_like(action[:, :1])], 1)
    last = torch.zeros(EPISODES, LENGTH, dtype=torch.bool)
    last[:, -1] = True
    return RecordedSteps(
        obs=obs[:, :-1].flatten(0, 1),
        next_obs=obs[:, 1:].flatten(0, 1),
        action=action.flatten(0, 1),
        following=later.flatten(0, 1),
        reward=gained.flatten(),
        goes_on=torch.ones(EPISODES * LENGTH),
        is_last=last.flatten(),
        episode=torch.arange(EPISODES).repeat_interleave(LENGTH),
        start_obs=start,
        start_action=action[:, 0],
        outcome=gained.sum(1),
        is_whole=torch.ones(EPISODES, dtype=torch.bool),
    )


def estimator(seed: int = 0) -> ScoreEstimator:
    return ScoreEstimator(TASK, recorded(seed), torch.Tensor.float, CONFIG, seed)


def constant(push: float):
    return lambda obs: torch.full_like(obs, push)


def true_score(act) -> float:
    start = torch.randn(4000, 1, generator=torch.Generator().manual_seed(9))
    return 100 * float(played(act, start)[2].sum(1).mean()) / LENGTH


def test_scores_of_a_linear_system() -> None:
    found = estimator()
    for push in (-0.5, 0.0, 0.5):
        assert found(constant(push)).score == pytest.approx(true_score(constant(push)), abs=6)


def test_intervals_hold() -> None:
    """In 30 sets of data, that of the true score is covered about as often as 95 % says."""
    covered = []
    for push in (-0.3, 0.4):
        truth = true_score(constant(push))
        found = [estimator(seed)(constant(push)) for seed in range(40, 55)]
        covered += [score.low <= truth <= score.high for score in found]
        width = np.mean([score.high - score.low for score in found])
        assert width < 40  # an interval that says everything would hold too
    assert np.mean(covered) >= 0.85


def test_equal_seeds_give_equal_scores() -> None:
    assert estimator()(constant(0.1)) == estimator()(constant(0.1))


def test_distance_is_from_what_was_done() -> None:
    steps = recorded(0)
    found = estimator()(constant(0.25))
    expected = float((steps.action - 0.25).square().mean())
    assert found.distance == pytest.approx(expected, rel=1e-5)


def test_calibration_of_a_line() -> None:
    value = torch.tensor([10.0, 20.0, 30.0, 40.0])
    line = Calibration.fit(value, value + 5)
    torch.testing.assert_close(line(torch.tensor([0.0, 25.0])), torch.tensor([5.0, 30.0]))
    assert line.error == pytest.approx(0, abs=1e-4)
    assert 1 < Calibration.fit(value, 2 * value).slope < 2
    scattered = Calibration.fit(torch.tensor([20.0, 20.1, 20.2]), torch.tensor([30.0, 0.0, 60.0]))
    assert scattered.slope == pytest.approx(1, abs=0.1) and scattered.error > 20
    assert Calibration.fit(value[:2], value[:2] + 5) == Calibration()


def fill(path, task: Task, episodes: int, seed: int = 0) -> EpisodeStore:
    rng = np.random.default_rng(seed)
    with EpisodeStore.create(path, Suite("one", (task,))) as store:
        store.add_source("test", {})
        made = []
        for i in range(episodes):
            obs = rng.standard_normal((LENGTH + 1, 1)).astype(np.float32)
            action = np.full((LENGTH, 1), i / 100, np.float32)
            gained = np.full(LENGTH, float(i), np.float32)
            ended = np.zeros(LENGTH, bool)
            ended[-1] = i % 2 == 0
            made.append(Episode(obs, action, gained, ended, np.arange(LENGTH) > i))
        store.append(task.name, made, "test")
    return EpisodeStore.open(path)


def test_steps_of_a_store(tmp_path) -> None:
    store = fill(tmp_path / "a", TASK, 6)
    steps = RecordedSteps.draw(store, "a", 1000, 0, BadData())
    assert len(steps.obs) == 5 * LENGTH and len(steps.start_obs) == 5  # the last is held out
    first = store.episode("a", 0)
    torch.testing.assert_close(steps.obs[:LENGTH], torch.from_numpy(first.obs[:-1]))
    torch.testing.assert_close(steps.next_obs[:LENGTH], torch.from_numpy(first.obs[1:]))
    assert steps.goes_on.view(5, LENGTH)[:, -1].tolist() == [0, 1, 0, 1, 0]
    assert (steps.goes_on.view(5, LENGTH)[:, :-1] == 1).all()
    torch.testing.assert_close(steps.outcome, LENGTH * torch.arange(5.0))
    torch.testing.assert_close(steps.following.view(5, LENGTH)[2, :-1], torch.full((11,), 0.02))
    assert steps.is_last.sum() == 5 and steps.is_whole.all()


def test_where_success_is_the_score_it_is_what_is_valued(tmp_path) -> None:
    task = replace(TASK, name="mw", domain="metaworld", env_id=None)
    steps = RecordedSteps.draw(fill(tmp_path / "a", task, 14), "mw", 1000, 0, BadData())
    assert steps.outcome.tolist() == [1.0] * 11 + [0.0] * 2
    assert set(steps.reward.tolist()) == {0.0, 1.0}


def test_one_episode_is_too_few(tmp_path) -> None:
    with pytest.raises(PwmError, match=r"has 1 whole train episodes of a, and policies are valued"):
        RecordedSteps.draw(fill(tmp_path / "a", TASK, 2), "a", 10, 0, BadData())


def test_finetuned_latents_have_no_estimate(tmp_path) -> None:
    config = ExtractConfig(checkpoint="a", data="b", out=str(tmp_path), expected_score=True)
    config.finetune.enabled = True
    with pytest.raises(PwmError, match="latents that do not change"):
        config.validate()


@pytest.fixture(scope="module")
def clones(toy, tmp_path_factory):
    out = tmp_path_factory.mktemp("clones")
    store = EpisodeStore.open(toy.data)
    config = CloningConfig(updates=5, hidden=[8])
    for name, policy in clone(store, store.suite.tasks, 1.0, config, seed=0).items():
        policy.save(out / name)
    return out


def test_the_command(toy, clones, tmp_path, capsys) -> None:
    words = ["estimate", f"policies={clones}", f"data={toy.data}", f"out={tmp_path / 'out'}"]
    small = ["estimate.features=8", "estimate.rows=100"]
    assert main([*words, *small]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in toy.tasks)
    found = json.loads((tmp_path / "out" / "estimates.json").read_text())
    assert set(found["tasks"]) == set(toy.tasks)
    for score in found["tasks"].values():
        assert score["low"] < score["score"] < score["high"]
    assert main([*words, *small, "tasks=[walker-run]"]) == 1
    assert f"{clones} has no policy for walker-run" in capsys.readouterr().err


def test_a_world_model_that_lacks_the_task_is_named(toy, clones, tmp_path, capsys) -> None:
    words = ["estimate", f"policies={clones}", f"data={toy.data}", f"out={tmp_path / 'out'}"]
    quick = Path(__file__).parents[3] / "checkpoints" / "quick" / "world_model"
    assert main([*words, f"checkpoint={quick}"]) == 1
    assert f"the world model {quick} does not know " in capsys.readouterr().err


def test_extraction_keeps_and_tells_the_best(toy, toy_world_model, tmp_path, capsys) -> None:
    words = [
        "select=expected_score",
        "estimate_every=6",
        "estimate.features=8",
        "estimate.rows=100",
    ]
    assert main(toy.extract(toy_world_model, tmp_path, *words)) == 0
    (file,) = (tmp_path / "groups").glob("*/metrics.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for name in toy.tasks:
        scores = [x for x in lines if f"{name}/expected_score" in x]
        assert [x["step"] for x in scores] == [0, 6, 12, 12]
        values = [x[f"{name}/expected_score"] for x in scores]
        assert values[-1] == pytest.approx(max(values[:-1]), abs=1e-3)
    assert "Expected scores" in capsys.readouterr().err
