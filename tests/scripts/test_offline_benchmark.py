"""The offline benchmark: data by kind, results that are kept, tables of known numbers."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import offline_benchmark as command
import pytest
import yaml
from offline import data, own, summary, table
from offline.network_policy import NetworkPolicy
from offline.plan import Plan, TaskData
from offline.records import Line, Records
from stores import make_episode

from pwm.core.errors import PwmError
from pwm.core.suites import get_task
from pwm.data.store import EpisodeStore
from pwm.evaluation.statistics import bootstrap_interval
from pwm.extraction.config import ActorCriticConfig, BCConfig, QConfig

TASKS = ("pendulum-swingup", "cartpole-swingup")
SMALL = {
    "tasks": {task: {"replay": 5, "medium": 3, "fixed": 4} for task in TASKS},
    "seeds": 2,
    "baselines": {name: {"updates": 4} for name in ("td3bc", "iql", "rebrac")},
    "own": {"small_data": "extract=small_data learner.iterations=3"},
    "pretrain": "model=tiny steps=5",
}


def written(directory: Path, **changes) -> str:
    file = directory / "plan.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **changes}, sort_keys=False))
    return f"plan={file}"


@pytest.fixture
def collected(tmp_path) -> data.BenchmarkData:
    """Stores as two trainings of each task would leave them; an episode's seed says which it is."""
    plan = Plan.read(Path(written(tmp_path).removeprefix("plan=")))
    for task in plan.suite:
        for training, first in ((data.FULL, 100), (data.MEDIUM, 200)):
            path = tmp_path / "collected" / f"{task.name}-{training}"
            with EpisodeStore.create(path, plan.suite) as store:
                store.add_source("agent", {"behaviour": "sac"})
                episodes = [make_episode(task, 6, first + i) for i in range(7)]
                for episode in episodes:
                    episode.terminated[:] = False
                store.append(task.name, episodes, "agent")
    return data.BenchmarkData(plan, tmp_path)


@pytest.mark.parametrize(
    ("kind", "seeds"),
    [
        ("replay", [100, 101, 102, 103, 104]),
        ("medium", [203, 204, 205, 206]),
        ("mixed", [203, 204, 105, 106]),
    ],
)
def test_a_kind_takes_the_right_episodes(kind, seeds, collected):
    (task, _) = TASKS
    assert collected.needed(kind, task) == []
    path = collected.take(kind, task)
    assert EpisodeStore.open(path).episodes(task)["seed"].tolist() == seeds
    before = data.digest(path, task)
    assert data.digest(collected.take(kind, task), task) == before
    fewer = replace(collected.plan, tasks={task: TaskData(7, 3, 4)})
    again = replace(collected, plan=fewer)
    assert data.FULL not in again.needed("medium", task)
    assert again.needed("mixed", task) == [data.FULL]


def test_a_joined_store_has_every_task(collected):
    paths = {task: collected.take("medium", task) for task in TASKS}
    joined = collected.joined("medium")
    assert {t: data.digest(joined, t) for t in TASKS} == {
        t: data.digest(p, t) for t, p in paths.items()
    }


def test_transitions_leave_out_what_no_action_follows(collected):
    path = collected.take("replay", TASKS[0])
    found, episode = data.transitions(path, TASKS[0]), make_episode(get_task(TASKS[0]), 6, 101)
    assert found["obs"].shape == (5 * 5, 3) and found["reward"].shape == (25,)
    for name, values in (
        ("obs", episode.obs[:5]), ("next_obs", episode.obs[1:6]), ("action", episode.action[:5]),
        ("next_action", episode.action[1:]), ("reward", episode.reward[:5]),
    ):  # fmt: skip
        np.testing.assert_array_equal(found[name][5:10], values)
    assert not found["terminal"].any()
    returns = EpisodeStore.open(path).episodes(TASKS[0])["return"]
    assert found["return_range"] == pytest.approx(np.ptp(returns))


def test_a_termination_is_kept(tmp_path):
    task = get_task(TASKS[0])
    episode = make_episode(task, 6)
    episode.terminated[:] = np.arange(6) == 5
    with EpisodeStore.create(tmp_path / "data", command.Plan(SMALL["tasks"]).suite) as store:
        store.add_source("test", {})
        store.append(task.name, [episode], "test")
    found = data.transitions(tmp_path / "data", task.name)
    assert found["terminal"].tolist() == [0, 0, 0, 0, 0, 1]
    np.testing.assert_array_equal(found["next_obs"][-1], episode.obs[-1])


def test_a_digest_is_put_on_record_and_a_difference_said(tmp_path):
    plan, file = Plan({"walker-run": TaskData(5, 3, 4)}), tmp_path / "digests.json"
    assert data.tell_other("mixed", "walker-run", plan, "abc", file) is None
    assert data.tell_other("mixed", "walker-run", plan, "abc", file) is None
    assert "mixed data of walker-run differ" in (
        data.tell_other("mixed", "walker-run", plan, "xyz", file) or ""
    )
    assert json.loads(file.read_text()) == {
        "walker-run mixed: medium 3-4 of 3 learned from, full 5-6 of 5 learned from; "
        "collect=sac_fast seed=1": "abc"
    }


def line(method: str, score: float, task: str = TASKS[0], seed: int = 0, **more) -> Line:
    given = {"kind": "replay", "made_of": "x", "data_mean": 20.0, "data_best": 50.0} | more
    return Line(
        task=task, method=method, seed=seed, score=score, episode_return=10 * score, updates=4,
        seconds=2.0, **given,
    )  # fmt: skip


def test_results_are_kept_and_the_last_one_counts(tmp_path):
    file = tmp_path / "scores.jsonl"
    records = Records(file)
    records.add(line("bc", 1.0))
    with file.open("ab") as torn:
        torn.write(b'{"kind": "rep')
    records = Records(file)
    assert records.has(("replay", TASKS[0], "bc", 0), "x")
    records.add(line("bc", 2.0, made_of="y", curve=[(1, 0.5), (4, 2.0)]))
    records = Records(file)
    key = ("replay", TASKS[0], "bc", 0)
    assert records.has(key, "y") and not records.has(key, "x")
    assert not records.has(("replay", TASKS[0], "bc", 1), "y")
    (found,) = records.lines(["replay"], TASKS)
    assert (found.score, found.curve) == (2.0, [(1, 0.5), (4, 2.0)])
    assert records.lines(["mixed"], TASKS) == []


def test_what_is_there_is_not_done_again_unless_its_settings_change(collected, tmp_path):
    words = [
        written(tmp_path), f"out={tmp_path}", "kinds=replay", "seeds=1",
        "methods=bc,small_data",
    ]  # fmt: skip

    def lacking(*more: str) -> list[tuple[str, tuple[str, ...]]]:
        benchmark = command.Benchmark(command.chosen([*words, *more]), print)
        return [(job.method, job.tasks) for job in benchmark.lacking()]

    for task in TASKS:
        collected.take("replay", task)
    assert lacking() == [("bc", TASKS[:1]), ("bc", TASKS[1:]), ("small_data", TASKS)]
    benchmark = command.Benchmark(command.chosen(words), print)
    for job in benchmark.lacking():
        made = {"seed": 1, "made_of": job.made_of}
        benchmark.records.add(line(job.method, 3.0, job.tasks[-1], **made))
    assert lacking() == [("small_data", TASKS[:1])]
    assert lacking("tasks=cartpole-swingup") == []
    assert lacking("tag=new") == [("small_data", TASKS)]
    written(tmp_path, cloning={"updates": 7})
    assert lacking() == [("bc", TASKS[:1]), ("bc", TASKS[1:]), ("small_data", TASKS[:1])]
    written(tmp_path, pretrain="model=tiny steps=6", cloning={"updates": 7})
    assert lacking("methods=small_data") == [("small_data", TASKS)]
    with pytest.raises(PwmError, match="no_such"):
        lacking("methods=no_such")


def test_settings_at_their_defaults_are_none():
    found = own.settings_of("extract", ["extract=small_data", "learner.lam=0.95", "pool=9"])
    assert found["learner.iterations"] == 700 and found["pool"] == 9
    assert "learner.lam" not in found and "learner.critic.real_ratio" not in found


def test_a_run_s_records_are_read(tmp_path):
    file = tmp_path / "groups" / "a" / "metrics.jsonl"
    file.parent.mkdir(parents=True)
    lines = [
        {"step": 1, "mw-reach/imagined_return": 1.0},
        {"step": 2, "mw-reach/imagined_return": 4.0, "mw-push/imagined_return": 9.0},
    ]
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    model = own.WorldModelRun("", tmp_path, "replay", 0, "d")
    run = own.Extraction(model, tmp_path, tmp_path, ("mw-reach",), [], 0)
    assert run.recorded("mw-reach") == {"imagined_return": 4.0}


def test_a_network_policy_acts_as_its_layers(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "mean": np.array([1.0, 2.0, 3.0], np.float32), "scale": np.array([1, 2, 4], np.float32),
        "weight_0": rng.standard_normal((5, 3), np.float32),
        "bias_0": rng.standard_normal(5, np.float32),
        "weight_1": rng.standard_normal((2, 5), np.float32), "bias_1": np.zeros(2, np.float32),
    }  # fmt: skip
    np.savez(tmp_path / "p.npz", **arrays)
    policy = NetworkPolicy.at(tmp_path / "p.npz")
    obs = rng.standard_normal((4, 3)).astype(np.float32)
    hidden = (obs - arrays["mean"]) / arrays["scale"] @ arrays["weight_0"].T + arrays["bias_0"]
    expected = np.tanh(hidden.clip(0) @ arrays["weight_1"].T)
    act = policy.begin(get_task("mw-reach"), [0] * 4)
    np.testing.assert_allclose(act(obs), expected, rtol=1e-5)


def results() -> list[Line]:
    """Two seeds of two tasks; ours is 5 and 15 above iql, the better baseline."""
    return [
        line(method, score + 2 * seed, task, seed, expected_score=expected)
        for method, scores, expected in (
            ("iql", (40.0, 50.0), None), ("bc", (30.0, 40.0), None), ("offline", (45.0, 65.0), 7.0),
        )
        for task, score in zip(TASKS, scores, strict=True)
        for seed in (0, 1)
    ]  # fmt: skip


def test_methods_are_compared_on_what_all_of_them_have():
    more = [line("bc", 0.0, "mw-reach"), line("bc", 0.0, seed=2)]
    found = summary.compare([*results(), *more])
    assert found is not None
    assert (found.best_baseline, found.seeds, found.left_out) == ("iql", [0, 1], 1)
    assert found.cells == [("replay", task) for task in TASKS]
    assert list(found.methods) == ["bc", "iql", "offline"]
    ours = found.methods["offline"]
    assert (ours.mean, ours.iqm, ours.beyond) == (56.0, 56.0, 10.0)
    assert ours.beyond_interval == (10.0, 10.0)  # seeds of a task differ from its baseline alike
    scores = [np.array([45.0, 47.0]), np.array([65.0, 67.0])]
    assert ours.mean_interval == bootstrap_interval(scores)
    assert (ours.reaches_best, found.methods["bc"].reaches_best) == (0.5, 0.0)
    assert found.methods["iql"].beyond is None
    assert summary.compare([line("bc", 1.0), line("iql", 1.0, "mw-reach")]) is None


def test_tables_show_every_kind_and_all():
    lines = [*results(), *(replace(one, kind="mixed", score=one.score + 10) for one in results())]
    text = table.markdown(lines)
    for part in (
        "## Replay\n\n2 tasks, 2 seeds. The best baseline is iql.",
        "## Mixed",
        "## All kinds\n\n4 pairs of kind and task, 2 seeds.",
        "| offline | 66.0 | ",
        "| mixed | cartpole-swingup | 20.0 | 50.0 | 51.0 | 61.0 | 76.0 |",
        "| +10.0 | 10.0 to 10.0 | 75 % | 2 |",
    ):
        assert part in text, part
    assert table.markdown([]).startswith("No task")


def test_the_picture_is_drawn(tmp_path):
    table.picture(results(), tmp_path / "table.png")
    assert (tmp_path / "table.png").read_bytes()[:4] == b"\x89PNG"


def test_the_rank_correlation_is_over_policies_with_a_record():
    lines = [line("a", s, seed=i, expected_score=e) for i, (s, e) in enumerate([(1, 5), (2, 7)])]
    assert summary.rank_correlation(lines, "expected_score") is None
    lines += [line("a", 3.0, seed=9, expected_score=6.0), line("bc", 90.0)]
    assert summary.rank_correlation(lines, "expected_score") == (pytest.approx(0.5), 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full.yaml", "smoke.yaml", "two_tasks.yaml", "afternoon.yaml"])
def test_shipped_plans_can_be_used(name):
    plan = Plan.read(Path(command.__file__).parent / "offline" / name)
    assert (
        len(plan.tasks)
        == {"full.yaml": 12, "smoke.yaml": 3, "two_tasks.yaml": 2, "afternoon.yaml": 8}[name]
    )
    own.settings_of("pretrain", shlex.split(plan.pretrain))
    for method in plan.own:
        assert own.settings_of("extract", plan.own_words(method))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=walker-run"], "unknown setting task"),
        (["tasks=humanoid"], "the plan has pendulum-swingup"),
        (["kinds=expert"], "kinds"),
        (["seeds=one"], "seeds=one must be whole numbers"),
        (["smoke=yes"], "smoke=yes must be true or false"),
        (["methods=iql"], "iql need d3rlpy; give baselines_python="),
        (["plan=nowhere.yaml"], "plan=nowhere.yaml cannot be read"),
    ],
)
def test_mistakes_are_explained(words, message):
    with pytest.raises(PwmError, match=message):
        command.chosen(words)


def test_without_d3rlpy_its_methods_are_left_out_and_that_is_said():
    asked = command.chosen([])
    assert asked.methods == ["bc", "bc_best", "plain", "small_data"]
    assert "td3bc, iql, rebrac are left out" in asked.notes[0]
    asked = command.chosen(["baselines_python=python", "smoke=true"])
    assert asked.methods[:5] == ["bc", "bc_best", "td3bc", "iql", "rebrac"]
    assert (asked.kinds, asked.seeds, asked.notes) == (["replay"], [0], [])


@pytest.mark.parametrize(("members", "updates"), [(0, 8), (2, 12)])
def test_updates_of_an_extraction_count_those_before_its_iterations(members, updates, tmp_path):
    q = QConfig(members=members, warmup_steps=4)
    learner = ActorCriticConfig(iterations=5, bc=BCConfig(warmup_steps=3), q=q)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"learner": asdict(learner)}))
    model = own.WorldModelRun("", tmp_path, "replay", 0, "")
    run = own.Extraction(model, tmp_path, tmp_path, ("walker-run",), [], 0)
    assert run.updates == updates
