"""Scores: normalization, bootstrap intervals against known values, files and the terminal table."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binom

from pwm.core.errors import PwmError
from pwm.core.suites import SUITES, get_suite, get_task
from pwm.evaluation.published_scores import (
    METHODS,
    RunSetting,
    describe_differences,
    describe_marks,
    figure,
    marks,
    published_columns,
)
from pwm.evaluation.results_csv import write_csv
from pwm.evaluation.score_tables import fixed, print_results, results_table
from pwm.evaluation.scores import (
    MethodScore,
    Results,
    TaskScore,
    score_data,
    score_task,
)
from pwm.evaluation.statistics import bootstrap_interval, iqm, iqm_interval

WALKER = get_task("walker-run")
REACH = get_task("mw-reach")


def test_a_score_just_below_zero_is_printed_without_a_sign():
    assert [fixed(x) for x in (-0.01, -0.06, None)] == ["0.0", "-0.1", "-"]


def small_results() -> Results:
    suite = get_suite("mw-reach,walker-run")
    extracted = {
        "walker-run": score_task(WALKER, [600.0, 700.0, 800.0, 500.0]),
        "mw-reach": score_task(
            REACH, [10.0, 20.0, 30.0, 40.0], [1, 0, 1, 1], [1, 1, 1, 1], [3, 9, 5, 7]
        ),
    }
    random = {
        "mw-reach": score_task(REACH, [1.0, 2.0, 3.0, 5.0], [0, 0, 0, 0], [0, 1, 0, 0]),
        "walker-run": score_task(WALKER, [20.0, 30.0, 40.0, 10.0]),
    }
    mean, best = score_data(WALKER, [100.0, 900.0])
    return Results.build(
        suite,
        extracted,
        {
            "data_best": {"walker-run": best},
            "data_mean": {"walker-run": mean},
            "random": random,
            "bc": {},
        },
        episodes=4,
        seeds=[0, 1, 2, 3],
        settings={"device": "cpu"},
    )


# Bootstrap


@pytest.mark.parametrize(("n", "successes"), [(10, 5), (10, 9), (40, 36), (2, 1)])
def test_interval_of_a_success_rate_is_that_of_the_binomial(n: int, successes: int) -> None:
    sample = np.array([1.0] * successes + [0.0] * (n - successes))
    low, high = bootstrap_interval([sample]) or (math.nan, math.nan)
    resampled = binom(n, successes / n)
    assert (low, high) == pytest.approx((resampled.ppf(0.025) / n, resampled.ppf(0.975) / n))


def test_interval_of_a_mean_approaches_the_normal_one() -> None:
    sample = np.random.default_rng(0).normal(3.0, 2.0, 2000)
    low, high = bootstrap_interval([sample]) or (math.nan, math.nan)
    half = 1.96 * sample.std() / math.sqrt(2000)
    assert low == pytest.approx(sample.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(sample.mean() + half, abs=0.1 * half)


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    intervals = [bootstrap_interval([rng.normal(7.0, 1.0, 20)]) for _ in range(200)]
    covered = np.mean([low <= 7.0 <= high for low, high in filter(None, intervals)])
    assert 0.88 <= covered <= 0.98


def test_suite_interval_resamples_within_tasks_only() -> None:
    rng = np.random.default_rng(2)
    apart = [np.full(10, 0.0), np.full(10, 100.0)]
    assert bootstrap_interval(apart) == (50.0, 50.0)
    tasks = [rng.normal(50.0, 10.0, 50) + shift for shift in (-40, -20, 0, 20)]
    low, high = bootstrap_interval(tasks) or (math.nan, math.nan)
    half = 1.96 * math.sqrt(sum(task.var() / 50 for task in tasks)) / 4
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)


def test_tasks_of_unequal_episode_counts_weigh_the_same() -> None:
    low, high = bootstrap_interval([np.full(2, 0.0), np.full(50, 1.0)]) or (math.nan, math.nan)
    assert (low, high) == (0.5, 0.5)


def test_interval_needs_two_episodes_and_is_a_point_for_equal_ones() -> None:
    assert bootstrap_interval([np.array([3.0])]) is None
    assert bootstrap_interval([np.array([1.0, 2.0]), np.array([3.0])]) is None
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([np.full(10, 0.25)]) == (0.25, 0.25)


def test_interval_depends_on_the_seed_alone() -> None:
    sample = np.random.default_rng(3).normal(size=15)
    assert bootstrap_interval([sample], seed=4) == bootstrap_interval([sample], seed=4)
    assert bootstrap_interval([sample], seed=4) != bootstrap_interval([sample], seed=5)


def test_interquartile_mean_leaves_a_quarter_out_at_each_end() -> None:
    assert iqm(np.array([[0.0, 10.0, 20.0, 30.0], [40.0, 50.0, 60.0, 1000.0]])) == 35.0


def test_interquartile_interval_resamples_seeds_within_tasks_only() -> None:
    apart = np.repeat([[0.0, 10.0, 90.0, 100.0]], 5, axis=0)
    assert iqm_interval(apart) == (50.0, 50.0)
    assert iqm_interval(apart[:1]) is None
    scores = np.random.default_rng(0).uniform(0, 100, (3, 20))
    draw = np.random.default_rng(1)
    drawn = [scores[draw.integers(3, size=(3, 20)), np.arange(20)] for _ in range(4000)]
    expected = np.percentile([iqm(resample) for resample in drawn], [2.5, 97.5])
    assert iqm_interval(scores) == pytest.approx(expected, abs=0.5)


# Scores of a task


def test_dmcontrol_is_scored_by_return() -> None:
    score = score_task(WALKER, [600.0, 700.0, 800.0])
    assert score.normalized_score == pytest.approx(70.0)
    assert score.episode_return == pytest.approx(700.0)
    assert score.success_last is None and score.success_any is None and score.successes == ()
    assert np.array(score.normalized_ci95) * 10 == pytest.approx(np.array(score.return_ci95))


def test_metaworld_is_scored_by_success_at_the_last_step() -> None:
    score = score_task(REACH, [1.0, 2.0, 3.0, 6.0], [1, 0, 0, 0], [1, 1, 1, 0])
    assert score.normalized_score == pytest.approx(25.0)
    assert (score.success_last, score.success_any) == (0.25, 0.75)
    assert score.episode_return == pytest.approx(3.0)
    assert score.successes == (1.0, 0.0, 0.0, 0.0)


def test_data_best_is_the_best_scored_episode_then_the_highest_return() -> None:
    mean, best = score_data(REACH, [900.0, 100.0, 300.0], [0, 1, 1])
    assert (best.normalized_score, best.episode_return) == (100.0, 300.0)
    assert mean.normalized_score == pytest.approx(200 / 3)
    assert mean.normalized_ci95 is None and best.return_ci95 is None and mean.returns == ()


@pytest.mark.parametrize(
    ("returns", "successes", "message"),
    [
        ([], None, "no episodes"),
        ([1.0, math.nan], [1, 0], "not finite"),
        ([1.0], None, "no successes were given"),
        ([1.0, 2.0], [1], "successes of shape"),
    ],
)
def test_wrong_episodes_are_refused(
    returns: list[float], successes: list[int] | None, message: str
) -> None:
    with pytest.raises(PwmError, match=message):
        score_task(REACH, returns, successes)


# Results


def test_suite_mean_and_order() -> None:
    results = small_results()
    assert results.task_names == ("mw-reach", "walker-run")
    assert results.policy.mean_normalized_score == pytest.approx((75.0 + 65.0) / 2)
    assert list(results.methods) == ["extracted", "random", "data_mean", "data_best"]
    low, high = results.policy.mean_ci95 or (math.nan, math.nan)
    assert low < 70.0 < high
    assert results.methods["data_best"].mean_normalized_score == pytest.approx(90.0)
    assert results.methods["data_best"].mean_ci95 is None


def test_a_task_outside_the_suite_or_no_task_is_refused() -> None:
    with pytest.raises(PwmError, match="not in suite"):
        MethodScore.build(get_suite("mw-reach"), {"walker-run": score_task(WALKER, [1.0])})
    with pytest.raises(PwmError, match="no task"):
        MethodScore.build(get_suite("mw-reach"), {})


def test_json_round_trip_and_schema(tmp_path: Path) -> None:
    results = small_results()
    path = tmp_path / "results.json"
    results.save(path)
    assert Results.load(path) == results
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]
    data = json.loads(path.read_text())
    assert set(data) >= {
        "suite", "episodes", "seeds", "mean_normalized_score", "mean_ci95", "settings", "tasks",
        "baselines",
    }  # fmt: skip
    assert set(data["tasks"]["mw-reach"]) == {
        "normalized_score", "normalized_ci95", "return", "return_ci95", "success_last",
        "success_any", "returns", "successes", "steps_to_success",
    }  # fmt: skip
    assert data["tasks"]["walker-run"]["success_last"] is None
    assert data["baselines"]["data_mean"]["tasks"]["walker-run"]["return_ci95"] is None


def test_numbers_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    bad = TaskScore(math.nan, None, 0.0, None, None, None)
    results = Results("s", 1, (0,), {}, MethodScore(0.0, None, {"walker-run": bad}), {})
    with pytest.raises(PwmError, match="finite"):
        results.save(tmp_path / "results.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "wrong value"),
        ("{}", "lack 'suite'"),
        ('{"suite": "s", "episodes": "many"}', "wrong value"),
    ],
)
def test_malformed_results_say_so_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(PwmError, match=message) as error:
        Results.load(path)
    assert "results.json" in str(error.value) and "\n" not in str(error.value)


def test_a_task_without_a_number_is_named_as_malformed(tmp_path: Path) -> None:
    data = small_results().to_json()
    for wrong, words in (
        ([1.0], r"wrong value \(tasks\.mw-reach\.return_ci95"),
        (["a", 1.0], "wrong value"),
    ):
        data["tasks"]["mw-reach"]["return_ci95"] = wrong
        with pytest.raises(PwmError, match=words):
            Results.from_json(data)


def test_csv_has_a_row_a_task_and_method(tmp_path: Path) -> None:
    results = small_results()
    write_csv(results, tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["task"]) for row in rows] == [
        ("extracted", "mw-reach"),
        ("extracted", "walker-run"),
        ("random", "mw-reach"),
        ("random", "walker-run"),
        ("data_mean", "walker-run"),
        ("data_best", "walker-run"),
    ]
    assert float(rows[0]["normalized_score"]) == 75.0 and rows[0]["episodes"] == "4"
    assert rows[0]["success_any"] == "1.0" and rows[0]["steps_to_success"] == "6.0"
    assert rows[1]["success_last"] == "" and float(rows[1]["return_low"]) < 650.0
    assert rows[5]["return"] == "900.0" and rows[5]["normalized_low"] == ""


# Table


def rendered(results: Results, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    print_results(results, console)
    return console.export_text()


def test_table_shows_every_task_method_and_the_mean() -> None:
    text = rendered(small_results(), 120)
    row = next(line for line in text.splitlines() if line.startswith("walker-run"))
    assert row.split()[:5] == ["walker-run", "65.0", row.split()[2], "650.0", "-"]
    assert "90.0" in row and "50.0" in row and "2.5" in row
    mean = next(line for line in text.splitlines() if line.startswith("mean"))
    assert mean.split()[1] == "70.0"
    assert "v = Meta-World v3 (published v2)" in " ".join(text.split())


def test_success_is_shown_in_every_measure() -> None:
    score = score_task(REACH, [10.0, 20.0, 30.0, 40.0], [1, 0, 0, 0], [1, 1, 1, 0], [5, 10, 30, 0])
    assert (score.success_last, score.success_any, score.steps_to_success) == (0.25, 0.75, 15)
    walker = {"walker-run": score_task(WALKER, [1.0, 2.0], [1, 1], [1, 1], [3, 3])}
    assert walker["walker-run"].steps_to_success is None, "it has no success"
    suite = get_suite("mw-reach,walker-run")
    results = Results.build(suite, {"mw-reach": score, **walker}, {}, episodes=4, seeds=[0])
    text = rendered(results, 80).split("Success, beside")[1].split("Beside published")[0]
    row = next(line for line in text.splitlines() if line.startswith("mw-reach"))
    assert row.split() == ["mw-reach", "0.25", "0.75", "15.0", "25.0"]
    assert "walker-run" not in text
    only = Results.build(get_suite("walker-run"), walker, {}, episodes=4, seeds=[0])
    assert "Success, beside" not in rendered(only, 80)


@pytest.mark.parametrize("steps", [None, [0, 0], [4, -1]])
def test_steps_to_success_are_left_out_where_there_are_none_or_not_all_known(steps) -> None:
    assert score_task(REACH, [1.0, 2.0], [1, 0], [1, 0], steps).steps_to_success is None


def test_tables_of_the_longest_names_fit_80_columns() -> None:
    names = ["mw-button-press-topdown-wall", "cartpole-balance-sparse"]
    tasks = {name: score_task(get_task(name), [998.0, 1000.0], [1, 1]) for name in names}
    baselines = ("random", "bc", "bc_best", "data_mean", "data_best")
    results = Results.build(
        get_suite(names), tasks, dict.fromkeys(baselines, tasks), episodes=2, seeds=[0, 1]
    )
    text = rendered(results, 80)
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    lines = text[text.index("Beside published figures") :].splitlines()
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in names)


def test_published_figures_stand_beside_the_score_with_marks() -> None:
    lines = rendered(small_results(), 80).splitlines()
    (title,) = (i for i, line in enumerate(lines) if line.startswith("Beside published"))
    walker, reach = (
        next(line for line in lines[title:] if line.startswith(name)).split()
        for name in ("walker-run", "mw-reach")
    )
    assert walker[:4] == ["walker-run", "65.0", "82.4", "52.7"]
    assert len(walker) == len(reach) == 8
    assert (walker[-1], reach[-1]) == ("mde", "mdve")


def test_time_of_a_decision_is_in_the_caption() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    print_results(small_results(), console, {"extracted": 0.05, "planner": 61.27})
    text = console.export_text(clear=False)
    assert "extracted 0.05; planner, prior and Q 61.3." in " ".join(text.split())


def test_marks_say_in_what_a_row_differs() -> None:
    same = {"walker-run": 115_000 * 101, "mw-reach": 40_000 * 101}
    run = RunSetting("48M", same, 10)
    assert (marks(run, "walker-run", "mt80"), marks(run, "mw-reach", "mt80")) == ("", "v")
    assert marks(RunSetting("48M", {"walker-run": 23_000 * 501}, 10), "walker-run", "mt30") == ""
    assert marks(run, "walker-run", "mt30") == "d"
    assert marks(RunSetting("5M", same, 3), "walker-run", "mt80") == "me"
    assert marks(RunSetting(None, {}, 10), "mw-reach", "mt80") == "mdv"
    long = RunSetting("48M", same, 10, {"mw-reach": "500x1"})
    assert (marks(long, "walker-run", "mt80"), marks(long, "mw-reach", "mt80")) == ("", "vp")


def test_marks_are_explained_by_what_the_run_had() -> None:
    text = describe_marks(RunSetting("0.3M", {"mw-reach": 5}, 3), "mdve")
    for part in ("of 0.3M parameters (published 48M)", "v3 (published v2)", "3 episodes (pub"):
        assert part in text
    assert "not known" in describe_marks(RunSetting(None, {}, 10), "d")


def test_settings_tell_what_published_figures_differ_in() -> None:
    settings = {"world_model": "5M", "data_rows": {"mw-reach": 7}}
    results = replace(small_results(), settings=settings)
    assert results.setting == RunSetting("5M", {"mw-reach": 7}, 4)
    assert replace(results, settings={}).setting == RunSetting(None, {}, 4)


def test_other_method_than_extracted_policies(tmp_path: Path) -> None:
    results = replace(small_results(), method="planner")
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results
    assert list(results.methods) == ["planner", "random", "data_mean", "data_best"]
    assert "planner, prior and Q" in rendered(results, 100)
    data = results.to_json()
    del data["method"]
    assert Results.from_json(data).method == "extracted"


def test_table_does_not_read_markup_in_names() -> None:
    score = score_task(WALKER, [1.0, 2.0])
    results = Results("s", 2, (0,), {}, MethodScore(0.15, None, {"[red]x": score}), {})
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(results_table(results))
    assert "[red]x" in console.export_text()


# Published figures


def test_published_means_are_those_of_the_papers() -> None:
    def means(suite: str) -> list[float | None]:
        columns = published_columns(suite, SUITES[suite].names, METHODS)
        return [None if c.mean is None else round(c.mean, 1) for c in columns.values()]

    assert means("mt80") == [81.8, None, 67.8, 92.9, 73.8, 54.1]
    assert means("mt30") == [76.8, None, 59.8, 88.4, 71.1, 76.6]


def test_published_suite_follows_the_run() -> None:
    (column,) = published_columns("walker-run", ["walker-run"], ["pwm-48M"]).values()
    assert column.suite == "mt30" and column.scores == {"walker-run": 85.78}
    mixed = published_columns("quick", SUITES["quick"].names, ["pwm-48M"])["pwm-48M"]
    assert mixed.suite == "mt80" and len(mixed.scores) == 5


def test_differences_name_what_differs() -> None:
    dmcontrol, mixed = (
        published_columns(name, SUITES[name].names)["pwm-48M"].differences
        for name in ("mt30", "quick")
    )
    assert not any("Meta-World" in text for text in dmcontrol)
    assert any("Meta-World v2" in text for text in mixed)
    assert any("48M parameters" in text for text in mixed)
    assert any("550,450,000 rows" in text for text in mixed)
    assert any(text.startswith("1 seed ") for text in mixed)
    sentences = describe_differences(published_columns("quick", SUITES["quick"].names).values())
    assert sentences[0].startswith("All: ") and "v3" in sentences[0]
    assert "10 seeds" in sentences[2] and "v3" not in sentences[2]


def test_unknown_tasks_and_methods() -> None:
    assert published_columns("x", ["not-a-task"]) == {}
    assert figure("mt80", "pwm-48M", "not-a-task") is None
    with pytest.raises(PwmError, match="known are pwm-48M"):
        published_columns("quick", ["mw-reach"], ["ppo"])
