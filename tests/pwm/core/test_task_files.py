"""Tasks that a YAML file describes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.suites import (
    Suite,
    Task,
    get_suite,
    get_task,
    suite_from_table,
    suite_table,
    task_names,
)
from pwm.data.episode import Episode, normalize_actions
from pwm.data.manifest import Manifest
from pwm.data.store import EpisodeStore
from pwm.evaluation.scores import score_task
from pwm.models.policy import load_policy
from pwm.simulation.behaviors import default_mixture, has_controller
from pwm.simulation.collect import collect
from pwm.simulation.collect_config import CollectConfig
from pwm.simulation.scripted_controllers import make_controller

TEXT = """\
name: gym-pendulum
env_id: Pendulum-v1
obs_dim: 3
action_dim: 1
episode_length: 200
score: {min: -1500, max: 0}
"""
PENDULUM = Task(
    "gym-pendulum", "gymnasium", 3, 1, 200, 1, "Pendulum-v1", "{}", score_min=-1500.0, score_max=0.0
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pendulum.yaml"
    path.write_text(TEXT)
    return path


def test_a_file_stands_for_a_task_wherever_one_is_named(file: Path) -> None:
    assert get_task(str(file)) == PENDULUM
    suite = get_suite(str(file))
    assert (suite.name, suite.tasks) == ("gym-pendulum", (PENDULUM,))
    mixed = get_suite(["walker-run", str(file)])
    assert mixed.names == ("walker-run", "gym-pendulum")
    assert get_suite(f"{file}, mw-push").names == ("gym-pendulum", "mw-push")
    with pytest.raises(PwmError, match="named twice in gym-pendulum, gym-pendulum"):
        get_suite([str(file), str(file)])


def test_a_list_is_a_suite(tmp_path: Path) -> None:
    path = tmp_path / "own.yml"
    path.write_text(
        "- mw-reach\n- {name: a, env_id: 'my.pkg:ns/A-v0', obs_dim: 2, action_dim: 1,\n"
        "   episode_length: 5, action_repeat: 4, score: success, env_kwargs: {b: [1, x], a: 1e-3}}"
    )
    suite = get_suite(str(path))
    assert suite.names == ("mw-reach", "a")
    own = suite["a"]
    assert own == Task(
        "a", "gymnasium", 2, 1, 5, 4, "my.pkg:ns/A-v0", '{"a": 0.001, "b": [1, "x"]}', None, None
    )
    with pytest.raises(PwmError, match=f"has 2 tasks; name one of them, as in {path}:mw-reach"):
        get_task(str(path))
    assert get_task(f"{path}:a") == own
    assert get_suite(f"mw-push,{path}:a").names == ("mw-push", "a")
    assert task_names([f"{path}:a", "mw-push"]) == ("a", "mw-push")
    with pytest.raises(PwmError, match="task 'b' is not in suite"):
        get_task(f"{path}:b")
    path.write_text("- mw-raech\n")
    with pytest.raises(PwmError, match="did you mean 'mw-reach'"):
        get_suite(str(path))


def test_a_task_that_a_store_or_model_has_goes_by_its_name() -> None:
    for spec in ("gym-pendulum", ["gym-pendulum"]):
        assert get_suite(spec, [PENDULUM]) == Suite("gym-pendulum", (PENDULUM,))
        assert task_names(spec) == ("gym-pendulum",)
    assert get_suite("mw-reach,gym-pendulum", [PENDULUM])["gym-pendulum"] == PENDULUM
    assert task_names("mt30") == get_suite("mt30").names
    with pytest.raises(PwmError, match=r"did you mean 'gym-pendulum'.*are gym-pendulum and those"):
        get_suite("gym-pendulun", [PENDULUM])
    with pytest.raises(PwmError, match=r"did you mean 'gym-pendulum'.*are gym-pendulum and those"):
        get_suite(["gym-pendulun", "mw-reach"], [PENDULUM])
    with pytest.raises(PwmError, match="'a/b' is no name of a task"):
        task_names("a/b")
    with pytest.raises(PwmError, match="named twice"):
        task_names(["a", "a"])


def test_scores() -> None:
    assert not PENDULUM.scored_by_success
    assert PENDULUM.normalized_score(-1500, 1) == 0
    assert PENDULUM.normalized_score(0, 0) == 100
    assert PENDULUM.normalized_score(-375, 0) == pytest.approx(75)
    assert PENDULUM.normalized_score(-3000, 0) == pytest.approx(-100)
    assert score_task(PENDULUM, [-1500.0, 0.0]).normalized_score == pytest.approx(50)
    by_success = Task("a", "gymnasium", 2, 1, 5, 1, "A-v0")
    assert by_success.scored_by_success
    assert score_task(by_success, [3.0, 4.0], [0, 1], [1, 1]).normalized_score == 50
    assert get_task("walker-run").normalized_score(500, 0) == 50


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: gym-pendulum", "name: a/b", "name 'a/b' is not of the form"),
        ("name: gym-pendulum", "name: walker-run", "walker-run is a task or suite of the bench"),
        ("name: gym-pendulum", "name: groups", "name groups is that of a file or directory"),
        ("name: gym-pendulum", "name: Run.json", "name Run.json is that of a file or directory"),
        ("name: gym-pendulum", "name: mine.yaml", "name mine.yaml is that of a file or directory"),
        ("name: gym-pendulum", "nam: x", "unknown field `nam`. Give name"),
        ("env_id: Pendulum-v1\n", "", "missing required field `env_id`"),
        ("Pendulum-v1", "${oc.env:HOME}", "env_id '\\${oc.env:HOME}' is not of the form"),
        ("obs_dim: 3", "obs_dim: 3.0", "Expected `int`, got `float` .*obs_dim"),
        ("obs_dim: 3", "obs_dim: 0", "`int` >= 1 .*obs_dim"),
        ("obs_dim: 3", "obs_dim: true", "Expected `int`, got `bool` .*obs_dim"),
        ("obs_dim: 3", "obs_dim: 3\nobs_dim: 4", "is no YAML of a task .*obs_dim"),
        ("{min: -1500, max: 0}", "{min: 0, max: 0}", "min 0 must be below max 0.*score"),
        ("{min: -1500, max: 0}", "{min: .nan, max: 0}", "both finite"),
        ("{min: -1500, max: 0}", "best", "value 'best' .*score"),
        ("score:", "env_kwargs: {render_mode: human}\nscore:", "sets render_mode, which pwm"),
        ("score:", "actions: {min: 2, max: 2}\nscore:", "2 must be below 2"),
        ("score:", "actions: {min: -1, max: [1, 1]}\nscore:", "2 highest values for 1 action"),
        ("score:", "env_kwargs: [1]\nscore:", "got `array` .*env_kwargs"),
        ("score:", "env_kwargs: {a: .inf}\nscore:", "env_kwargs can hold"),
        (TEXT, "- 3", "entry 1 describes no task"),
        (TEXT, "[]", "lists no task"),
        (TEXT, "a: [", "is no YAML"),
        (TEXT, "!!python/object/apply:sys.exit [3]", "is no YAML"),
    ],
)
def test_what_cannot_work_is_refused_at_the_door(
    file: Path, old: str, new: str, message: str
) -> None:
    assert old in TEXT
    file.write_text(TEXT.replace(old, new))
    with pytest.raises(PwmError, match=message) as caught:
        get_suite(str(file))
    assert str(file) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PwmError, match=r"there is no task file .*none\.yaml"):
        get_suite(str(tmp_path / "none.yaml"))


def test_tables_hold_own_tasks_and_leave_the_others_as_they_were() -> None:
    suite = Suite("own", (get_task("walker-run"), PENDULUM))
    table = json.loads(json.dumps(suite_table(suite)))
    assert suite_from_table(table) == suite
    assert set(table["tasks"][0]) == {
        "name", "domain", "obs_dim", "action_dim", "episode_length", "action_repeat"
    }  # fmt: skip


def test_stated_action_bounds_are_kept_and_make_no_other_task(file: Path) -> None:
    file.write_text(TEXT + "actions: {min: -2, max: [3]}\n")
    suite = get_suite(str(file))
    assert suite.tasks == (PENDULUM,)
    kept = suite_from_table(json.loads(json.dumps(suite_table(suite)))).tasks[0]
    assert (kept.action_low, kept.action_high) == ((-2.0,), (3.0,))
    assert "action_low" not in PENDULUM.table()
    wrong = kept.table() | {"action_high": None}
    with pytest.raises(PwmError, match="1 lowest and 0 highest values for 1 action"):
        suite_from_table({"name": "a", "tasks": [wrong]})


def test_what_outcomes_are_kept_under_has_no_action_bounds() -> None:
    known = replace(PENDULUM, action_low=(-2.0,), action_high=(2.0,))
    assert known.facts() == PENDULUM.facts()
    assert list(PENDULUM.facts()) == [
        "name", "domain", "obs_dim", "action_dim", "episode_length", "action_repeat", "env_id",
        "env_kwargs", "score_min", "score_max",
    ]  # fmt: skip


def test_a_store_keeps_the_task_and_refuses_what_contradicts_it(tmp_path: Path) -> None:
    EpisodeStore.create(tmp_path / "store", Suite("own", (PENDULUM,))).close()
    assert EpisodeStore.open(tmp_path / "store").suite.tasks == (PENDULUM,)
    for task, fault in (
        (Task("a", "gymnasium", 2, 1, 5), "names no Gymnasium environment"),
        (Task("a", "gymnasium", 2, 1, 5, 1, "A-v0", "[]"), "names no Gymnasium environment"),
        (Task("a", "gymnasium", 2, 1, 5, 1, "A-v0", "{}", 1.0), "has no range"),
        (Task("a", "gymnasium", 2, 1, 5, 1, "A-v0", "{}", 1.0, 1.0), "has no range"),
    ):
        with pytest.raises(PwmError, match=fault):
            Manifest.empty(Suite("own", (task,)))


def test_collects_in_an_own_task(file: Path, tmp_path: Path) -> None:
    own = Task("pendulum-like", "gymnasium", 3, 1, 200, 1, "Pendulum-v1", "{}", -1500.0, 0.0)
    assert not has_controller(own)
    assert set(default_mixture(own)) == {"random", "ou"}
    with pytest.raises(PwmError, match="no scripted controller"):
        make_controller(own)
    out = collect(CollectConfig(str(tmp_path / "data"), suite=str(file), episodes=3, workers=1))
    store = EpisodeStore.open(out)
    assert store.count("gym-pendulum") == 3
    task = store.suite["gym-pendulum"]
    assert (task.action_low, task.action_high) == ((-2.0,), (2.0,))  # of the environment
    obs = store.episode("gym-pendulum", 0).obs
    assert obs.shape == (201, 3)
    np.testing.assert_allclose(np.hypot(obs[:, 0], obs[:, 1]), 1, rtol=1e-5)


def test_the_documented_lines_write_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "your-own-data.md").read_text()
    described = page.split("```yaml\n")[1].split("```")[0]
    arrays = page.split("## From NumPy arrays")[1]
    lines = arrays.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    Path("pendulum.yaml").write_text(described)
    assert get_task("pendulum.yaml") == PENDULUM
    rng = np.random.default_rng(0)
    names = {
        "Episode": Episode,
        "EpisodeStore": EpisodeStore,
        "get_suite": get_suite,
        "gymnasium": gymnasium,
        "normalize_actions": normalize_actions,
        "obs": rng.normal(size=(6, 3)),
        "torques": np.array([[-2.0], [2], [1], [0], [-1]]),
        "reward": rng.normal(size=5),
        "terminated": np.zeros(5, bool),
        "success": np.zeros(5, bool),
    }
    exec(lines, names)
    assert EpisodeStore.open("my_data").count("gym-pendulum") == 1
    stored = EpisodeStore.open("my_data").episode("gym-pendulum", 0).action
    assert stored.ravel().tolist() == [-1, 1, 0.5, 0, -0.5]


@pytest.mark.slow
def test_the_whole_chain(file: Path, tmp_path: Path) -> None:
    def run(*words: str) -> None:
        assert main(list(words)) == 0

    data, model, policies = (str(tmp_path / name) for name in ("data", "model", "policies"))
    collect(CollectConfig(data, suite=str(file), episodes=4, workers=1))
    run(
        "pretrain", f"data={data}", f"out={model}", "model=tiny", "steps=3", "batch_size=8",
        "horizon={lengths:[4],starts:[0.0]}", "device=cpu",
    )  # fmt: skip
    run(
        "extract", f"checkpoint={model}", f"data={data}", f"out={policies}", f"tasks=[{file}]",
        "extract=small_data", "learner.iterations=2", "pool=64", "device=cpu",
        "learner.batch_size=8", "learner.horizon=4",
    )  # fmt: skip
    policy = load_policy(f"{policies}/gym-pendulum")
    env = gymnasium.make("Pendulum-v1")
    obs, _ = env.reset(seed=0)
    assert policy.act(obs) == 2 * policy.act(obs, normalized=True)
    assert env.action_space.contains(policy.act(obs, noise=9.0))
    run(
        "evaluate", f"policy={policies}", f"out={tmp_path}", "episodes=2", "workers=1",
        "tasks=gym-pendulum",
    )  # fmt: skip
    results = json.loads((tmp_path / "results.json").read_text())
    found = results["tasks"]["gym-pendulum"]
    expected = [PENDULUM.normalized_score(value, 0) for value in found["returns"]]
    assert found["normalized_score"] == pytest.approx(np.mean(expected))
    assert found["success_last"] is None
