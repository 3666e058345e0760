"""Minari datasets into an episode store. The dataset is written by Minari from Pendulum-v1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from pwm.core.errors import PwmError
from pwm.data.store import EpisodeStore
from pwm.interop.conversion import ConvertConfig
from pwm.interop.convert import convert
from pwm.interop.minari_data import flatten_steps, reported_success

minari = pytest.importorskip("minari")

TASK = """\
name: gym-pendulum
env_id: Pendulum-v1
obs_dim: 3
action_dim: 1
episode_length: 200
score: {min: -1500, max: 0}
"""
EPISODES = 6


def record(seed: int, steps: int) -> Any:
    from minari.data_collector import EpisodeBuffer

    env, rng = gymnasium.make("Pendulum-v1"), np.random.default_rng(seed)
    first, _ = env.reset(seed=seed)
    episode = EpisodeBuffer(id=seed, seed=seed, observations=[first], actions=[])
    success = [False]
    for step in range(1, steps + 1):
        action = rng.uniform(-2, 2, 1).astype(np.float32)
        obs, reward, terminated, _, _ = env.step(action)
        episode.observations.append(obs)
        episode.actions.append(action)
        episode.rewards.append(float(reward))
        episode.terminations.append(terminated)
        episode.truncations.append(step == steps)
        success.append(step > 2)
    return EpisodeBuffer(**{**vars(episode), "infos": {"success": success}})


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    episodes = [record(seed, 200 if seed else 7) for seed in range(EPISODES)]
    minari.create_dataset_from_buffers(
        "pendulum/random-v0", episodes, env="Pendulum-v1", algorithm_name="uniform"
    )
    (tmp_path / "task.yaml").write_text(TASK)
    return tmp_path / "datasets" / "pendulum" / "random-v0"


def settings(directory: Path, **changes: Any) -> ConvertConfig:
    values = {
        "source": "minari:pendulum/random-v0",
        "suite": str(directory / "task.yaml"),
        "out": str(directory / "store"),
    }
    return ConvertConfig(**{**values, **changes})


def test_the_store_holds_what_was_recorded(dataset: Path, tmp_path: Path) -> None:
    store = EpisodeStore.open(convert(settings(tmp_path)))
    assert store.count("gym-pendulum") == EPISODES
    for i in range(EPISODES):
        recorded, stored = record(i, 200 if i else 7), store.episode("gym-pendulum", i)
        np.testing.assert_array_equal(stored.obs, np.asarray(recorded.observations))
        np.testing.assert_allclose(stored.action, np.asarray(recorded.actions) / 2, atol=1e-6)
        np.testing.assert_allclose(stored.reward, recorded.rewards, rtol=1e-6)
        assert not stored.terminated.any()
        assert stored.success.tolist() == [step > 2 for step in range(1, len(stored.action) + 1)]
        assert (stored.seed, stored.behaviour) == (i, "uniform")
    described = store.sources["minari"]
    assert described["dataset"] == "pendulum/random-v0"
    assert (described["action_low"], described["action_high"]) == ([-2.0], [2.0])
    task = store.suite["gym-pendulum"]
    assert (task.action_low, task.action_high) == ((-2.0,), (2.0,))


@pytest.mark.parametrize(
    ("infos", "expected"),
    [
        ({"success": [0, 1, 1]}, [False, True, True]),
        ({"success": [0, 0, 1, 1]}, [False, True, True]),  # the first is of the reset
        ({"is_success": np.array([[0.0], [0.0], [1.0]])}, [False, False, True]),
        ({"success": [True], "is_success": [0, 0, 0]}, [False, False, False]),
        ({"success": [0, 0, 0, 0, 0]}, None),
        ({"success": [True]}, None),
        ({"success": [0, np.nan, 1]}, None),
        ({"success": ["no", "no", "yes"]}, None),
        ({"other": [0, 0, 0]}, None),
        ({}, None),
        (None, None),
    ],
)
def test_success_is_known_if_there_is_a_number_per_step(infos: Any, expected: Any) -> None:
    found = reported_success(infos, 3)
    assert (found if found is None else found.tolist()) == expected


def test_by_path_limited_and_again(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(tmp_path, source=f"minari:{dataset}", limit=2)
    store = EpisodeStore.open(convert(config))
    assert store.count("gym-pendulum") == 2
    convert(config)
    assert "is whole already" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(PwmError, match="limit: 2 -> 3"):
        convert(settings(tmp_path, source=f"minari:{dataset}", limit=3))
    (tmp_path / "task.yaml").write_text(TASK.replace("episode_length: 200", "episode_length: 9"))
    with pytest.raises(PwmError, match="now it has episode_length 9 and not 200"):
        convert(config)


def test_goes_on_after_a_stop(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pwm.interop.minari_data._BLOCK_BYTES", 1)
    whole = convert(settings(tmp_path, out=str(tmp_path / "whole")))
    append, calls = EpisodeStore.append, []

    def stopping(self: EpisodeStore, *arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        append(self, *arguments)

    monkeypatch.setattr(EpisodeStore, "append", stopping)
    with pytest.raises(KeyboardInterrupt):
        convert(settings(tmp_path))
    assert not (tmp_path / "store").exists()
    monkeypatch.setattr(EpisodeStore, "append", append)
    convert(settings(tmp_path))
    for file in ("manifest.json", "gym-pendulum/rows.bin", "gym-pendulum/episodes.bin"):
        assert (tmp_path / "store" / file).read_bytes() == (whole / file).read_bytes()


def edit_metadata(dataset: Path, **changes: Any) -> None:
    path = dataset / "data" / "metadata.json"
    metadata = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation_space": None}, "does not state its observation_space"),
        ({"minari_version": "99.0.0"}, "written by Minari 99.0.0"),
        (
            {"action_space": '{"type": "Discrete", "dtype": "int64", "start": 0, "n": 3}'},
            "needs continuous actions",
        ),
        (
            {"observation_space": '{"type": "Discrete", "dtype": "int64", "start": 0, "n": 3}'},
            "needs continuous observations",
        ),
        (
            {
                "action_space": '{"type": "Box", "dtype": "float32", "shape": [1], '
                '"low": [-4.0], "high": [4.0]}'
            },
            "action bounds are others",
        ),
    ],
)
def test_datasets_that_do_not_fit_are_refused(
    dataset: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    edit_metadata(dataset, **changes)
    with pytest.raises(PwmError, match=message):
        convert(settings(tmp_path))


def test_settings_that_do_not_fit_are_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(PwmError, match="no Minari dataset nothing/here-v0"):
        convert(settings(tmp_path, source="minari:nothing/here-v0"))
    with pytest.raises(PwmError, match="of one task, and suite=mt30 has 30"):
        convert(settings(tmp_path, suite="mt30"))
    (tmp_path / "task.yaml").write_text(TASK + "action_repeat: 2\n")
    with pytest.raises(PwmError, match="set action_repeat to 1"):
        convert(settings(tmp_path))


def test_observations_flatten_as_gymnasium_does() -> None:
    box = spaces.Box(-1, 1, (2, 2))
    space = spaces.Dict({"z": box, "a": spaces.Tuple([spaces.Box(-1, 1, (3,)), box])})
    space.seed(0)
    samples = [space.sample() for _ in range(4)]
    batch = {
        "z": np.stack([s["z"] for s in samples]),
        "a": tuple(np.stack([s["a"][i] for s in samples]) for i in range(2)),
    }
    expected = np.stack([spaces.flatten(space, sample) for sample in samples])
    np.testing.assert_array_equal(flatten_steps(space, batch), expected)
