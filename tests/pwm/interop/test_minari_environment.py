"""The environment of a Minari dataset beside the task's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs import make_env
from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.data.store import EpisodeStore
from pwm.interop.conversion import ConvertConfig
from pwm.interop.convert import convert
from pwm.interop.minari_environment import differences, require_same_entries

minari = pytest.importorskip("minari")

FILE = """\
name: odd
env_id: odd_env:Odd-v0
env_kwargs: {gravity: 3}
obs_dim: 3
action_dim: 1
episode_length: 4
score: success
"""
MODULE = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Odd(gymnasium.Env):
    observation_space = spaces.Dict(
        {"speed": spaces.Box(-9, 9, (2,)), "angle": spaces.Box(-9, 9, (1,))}, sort_keys=False
    )
    action_space = spaces.Box(-2, 2, (1,))

    def __init__(self, gravity=9.81, drag=0.0, render_mode=None):
        self.age = 0.0

    def observe(self):
        return {"speed": np.float32([self.age, 5]), "angle": np.float32([7])}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.age = 0.0
        return self.observe(), {"success": False}

    def step(self, action):
        self.age += 1
        return self.observe(), 1.0, self.age == 4, False, {"success": self.age > 2}


gymnasium.register("Odd-v0", "odd_env:Odd", max_episode_steps=4)
"""


def test_a_dictionary_is_flattened_in_the_environments_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd_env.py").write_text(MODULE)
    (tmp_path / "odd.yaml").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    collector = minari.DataCollector(gymnasium.make("odd_env:Odd-v0", gravity=3), record_infos=True)
    collector.reset(seed=0)
    for _ in range(4):
        collector.step(np.float32([1]))
    collector.create_dataset("odd/one-v0")
    config = ConvertConfig("minari:odd/one-v0", str(tmp_path / "o"), str(tmp_path / "odd.yaml"))
    store = EpisodeStore.open(convert(config))
    episode, task = store.episode("odd", 0), store.suite["odd"]
    np.testing.assert_array_equal(episode.obs, [[age, 5, 7] for age in range(5)])
    np.testing.assert_array_equal(make_env(task).reset()[0], episode.obs[0])
    assert episode.success is not None
    assert episode.success.tolist() == [False, False, True, True]
    assert store.sources["minari"]["observation_order"] == ["speed", "angle"]
    assert "The environment of the data" not in capfd.readouterr().err

    metadata = tmp_path / "datasets" / "odd" / "one-v0" / "data" / "metadata.json"
    text = metadata.read_text()
    metadata.write_text(text.replace('\\"angle\\"', '\\"height\\"'))
    with pytest.raises(
        PwmError, match="observations of speed, height, and odd_env:Odd-v0 of speed"
    ):
        convert(replace(config, out=str(tmp_path / "p")))


BOX = spaces.Box(-1, 1, (2,))
TASK = Task("odd", "gymnasium", 4, 1, 50, 1, "odd_env:Odd-v0", "{}", 0.0, 1.0)
SPEC = {"id": "Odd-v0", "kwargs": {"gravity": 3, "pair": [1, 2]}, "max_episode_steps": 50}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"id": "Even-v0"}, ["the data are of Even-v0"]),
        ({"kwargs": {"pair": [1, 2]}}, ["gravity was None and is 3"]),
        ({"kwargs": {"gravity": 3, "pair": [2, 1]}}, ["pair was [2, 1] and is [1, 2]"]),
        (
            {"additional_wrappers": [{"name": "NormalizeReward"}, {"name": "FlattenObservation"}]},
            ["the data were recorded through NormalizeReward, which it does not have"],
        ),
        ({"max_episode_steps": 30}, ["episodes were limited to 30 steps and are to 50"]),
        ({"max_episode_steps": None}, []),
    ],
)
def test_every_difference_of_how_it_was_made_is_told(
    changes: Mapping[str, Any], told: list[str]
) -> None:
    made_with = {"gravity": 3, "pair": (1, 2), "render_mode": None}
    assert list(differences(TASK, {**SPEC, **changes}, made_with, BOX, BOX)) == told


def test_every_difference_of_the_observations_is_told() -> None:
    own = spaces.Dict({"a": BOX, "b": spaces.Tuple([BOX, spaces.Box(0, 1, (4,))])})
    space = spaces.Dict({"a": spaces.Box(-5, 1, (2,)), "b": spaces.Tuple([BOX, BOX])})
    a, b = differences(TASK, {**SPEC, "kwargs": {}}, {}, space, own)
    assert a.startswith("the bounds of observation a were Box(")
    assert b == "observation 1 had shape (2,) and has (4,)"
    (flat,) = differences(TASK, {**SPEC, "kwargs": {}}, {}, BOX, own)
    assert flat.startswith("observations were Box(-1.0, 1.0, (2,), float32) and are Dict('a'")
    wrapped = {**SPEC, "kwargs": {}, "additional_wrappers": [{"name": "FlattenObservation"}]}
    assert not list(differences(TASK, wrapped, {}, BOX, own))
    assert list(differences(TASK, {}, {}, BOX, BOX)) == [
        "the dataset does not say how its environment was made"
    ]
    with pytest.raises(PwmError, match=r"has observations of a, b\.0, b\.1, and .* of c"):
        require_same_entries("dataset d", space, spaces.Dict({"c": BOX}), TASK)
