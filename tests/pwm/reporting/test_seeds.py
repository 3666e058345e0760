from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task, get_suite
from pwm.evaluation.scores import Results, score_data, score_task
from pwm.reporting.seeds import Pooled, Seeds

SUITE = get_suite("walker-run,mw-push")
WALKER, PUSH = SUITE.tasks


def scores(level: float, spread: float = 0.0, episodes: int = 10):
    returns = level * 10 + spread * np.linspace(-10, 10, episodes)
    success = (np.arange(episodes) < level / 100 * episodes).astype(float)
    return {
        "walker-run": score_task(WALKER, returns),
        "mw-push": score_task(PUSH, returns, success, success),
    }


def results(level: float, method: str = "extracted", **baselines):
    return Results.build(
        SUITE, scores(level, 1.0), baselines, method=method, episodes=10, seeds=range(1000, 1010)
    )


def test_means_are_over_tasks_seeds_and_episodes():
    pooled = Pooled.of([scores(20.0), scores(60.0)])
    assert pooled.mean(["walker-run"]) == pytest.approx(40.0)
    assert pooled.mean(["walker-run", "mw-push"]) == pytest.approx(40.0)
    assert pooled.mean(["walker-run", "walker-walk"]) is None


def test_an_interval_covers_the_spread_of_seeds_and_not_that_of_tasks():
    spread = Pooled.of([scores(20.0), scores(40.0), scores(60.0)])
    low, high = spread.interval(["walker-run"])
    assert low == pytest.approx(80 / 3, abs=7)
    assert high == pytest.approx(160 / 3, abs=7)
    assert Pooled.of([scores(50.0)] * 3).interval(["walker-run"]) == (50.0, 50.0)


def test_seeds_are_drawn_together_for_all_tasks():
    """Tasks that rise and fall with their seed do not average its influence away."""
    pooled = Pooled.of([scores(20.0), scores(60.0)])
    one = np.diff(pooled.interval(["walker-run"]))
    both = np.diff(pooled.interval(["walker-run", "mw-push"]))
    assert both > 0.9 * one


def test_an_interval_of_one_seed_is_over_its_episodes():
    found = Pooled.of([scores(50.0, 10.0)]).interval(["walker-run"])
    assert found[0] < 50 < found[1]
    assert Pooled.of([scores(50.0, 10.0)]).interval(["walker-run"]) == found


def test_the_interquartile_mean_is_over_seeds_and_tasks():
    mean, interval = Pooled.of([scores(20.0), scores(60.0)]).iqm(list(SUITE.names))
    assert mean == pytest.approx(40.0)
    assert interval == pytest.approx((20.0, 60.0))
    assert Pooled.of([scores(20.0)]).iqm(["walker-run"]) == (pytest.approx(20.0), None)


def test_figures_of_data_have_no_interval():
    mean, _ = score_data(WALKER, [100.0, 300.0])
    pooled = Pooled.of([{"walker-run": mean}])
    assert pooled.mean(["walker-run"]) == 20.0
    assert pooled.interval(["walker-run"]) is None


def save(path, content):
    path.mkdir()
    content.save(path / "results.json")
    return path


def test_planners_are_no_seed_and_baselines_that_repeat_count_once(tmp_path):
    runs = [
        save(tmp_path / "a", results(20.0, random=scores(10.0))),
        save(tmp_path / "b", results(40.0, random=scores(10.0), bc=scores(20.0))),
        save(tmp_path / "c", results(70.0, "planner")),
    ]
    seeds = Seeds.read(runs)
    assert len(seeds.extracted) == 2
    methods = seeds.methods()
    tasks = list(SUITE.names)
    means = {name: method.mean(tasks) for name, method in methods.items()}
    assert means == pytest.approx({"extracted": 30, "random": 10, "bc": 20, "planner": 70}, abs=3)
    assert len(methods["random"].by_task["mw-push"]) == 1


def test_runs_must_be_of_the_same_tasks(tmp_path):
    one = get_suite("walker-run")
    other = Results.build(
        one, {"walker-run": scores(1.0)["walker-run"]}, {}, episodes=10, seeds=range(10)
    )
    runs = [save(tmp_path / "a", results(20.0)), save(tmp_path / "b", other)]
    with pytest.raises(PwmError, match=r"not of the same tasks \(mw-push"):
        Seeds.read(runs)


def test_the_same_policies_are_not_two_seeds(tmp_path):
    again = dataclasses.replace(results(20.0), settings={"policy": "elsewhere"})
    runs = [save(tmp_path / "a", results(20.0)), save(tmp_path / "b", again)]
    with pytest.raises(PwmError, match="give every seed once"):
        Seeds.read(runs)


def test_planners_alone_are_no_results(tmp_path):
    with pytest.raises(PwmError, match="none of the runs is of extracted policies"):
        Seeds.read([save(tmp_path / "a", results(20.0, "planner"))])


def test_user_defined_tasks_are_pooled_as_they_are_described(tmp_path):
    own = Task("own", "gymnasium", 3, 1, 9, 1, "Pendulum-v1", "{}", -100.0, 0.0)
    suite = Suite("own", (own,))
    runs = []
    for seed, described in enumerate((own, own, dataclasses.replace(own, score_max=100.0))):
        of_task = {"own": score_task(own, [-80.0 + 20 * seed, -60.0])}
        noted = {"own_tasks": [described.table()]}
        made = Results.build(suite, of_task, {}, episodes=2, seeds=(0, 1), settings=noted)
        runs.append(tmp_path / str(seed))
        runs[-1].mkdir()
        made.save(runs[-1] / "results.json")
    assert Seeds.read(runs[:2]).methods()["extracted"].mean(["own"]) == pytest.approx(35)
    with pytest.raises(PwmError, match=r"2 and .*0 describe a task otherwise"):
        Seeds.read(runs)
