from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice
from xml.etree import ElementTree

import numpy as np
import pytest

from pwm.cli.main import main
from pwm.core.suites import SUITES, Suite, get_suite
from pwm.evaluation.scores import MethodScore, Results, TaskScore
from pwm.reporting import plots
from pwm.reporting.plots import rounds_grid
from pwm.reporting.results_page import parts_of


def whole(tasks) -> MethodScore:
    return MethodScore(np.mean([s.normalized_score for s in tasks.values()]), None, tasks)


def make_run(
    path, suite: Suite, seed: int, method: str = "extracted", episodes: int = 10, cloned=True
):
    """An evaluation with scores that differ by task, and a grown run's rounds beside."""
    rng = np.random.default_rng([seed, len(method)])

    def scores(level):
        found = {}
        for task in suite:
            returns = tuple((1000 * level * rng.random(episodes)).tolist())
            success = tuple((rng.random(episodes) < level).astype(float).tolist())
            last = np.mean(success) if task.scored_by_success else None
            mean = task.normalized_score(float(np.mean(returns)), last or 0.0)
            found[task.name] = TaskScore(
                mean, None, float(np.mean(returns)), None, last, last, returns,
                success if task.scored_by_success else (),
            )  # fmt: skip
        return found

    path.mkdir()
    baselines = {"random": scores(0.1)} | ({"bc": scores(0.4)} if cloned else {})
    settings = {"world_model": "5M", "data_rows": dict.fromkeys(suite.names, 100)}
    results = Results(
        suite.name, episodes, tuple(range(1000, 1000 + episodes)), settings, whole(scores(0.8)),
        {name: whole(found) for name, found in baselines.items()}, method,
    )  # fmt: skip
    results.save(path / "results.json")
    task = {"added": 1, "episodes": 1, "rows": 2, "normalized_ci95": None, "episode_return": 1.0}
    rounds = [
        {
            "number": i,
            "mean_normalized_score": 30.0 * i,
            "mean_ci95": None,
            "tasks": {name: {**task, "normalized_score": 30.0 * i} for name in suite.names},
        }
        for i in range(3)
    ]
    (path / "rounds.json").write_text(json.dumps({"suite": suite.name, "rounds": rounds}))
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    directory = tmp_path_factory.mktemp("page")
    suite = SUITES["mt80"]
    runs = [make_run(directory / f"s{i}", suite, i) for i in range(3)]
    make_run(directory / "planned", suite, 9, "planner+actor", episodes=1)
    (runs[0] / "strips").mkdir()
    (runs[0] / "strips" / "walker-run_0.jpg").write_bytes(b"a picture")
    (directory / "notes.md").write_text("The worst tasks want exploration.\n")
    listed = ",".join(map(str, runs))
    words = [
        "report", f"run=[{listed},{directory / 'planned'}]", f"grow=[{listed}]",
        f"notes={directory / 'notes.md'}", f"results={directory / 'RESULTS.md'}",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "rounds_grid", few_panels)
        assert main(words) == 0
    return directory / "RESULTS.md"


def few_panels(lines, marks, alt):
    """Eighty panels take seconds to draw, and are no different."""
    return rounds_grid(dict(islice(lines.items(), 5)), marks, alt)


def test_panels_of_rounds_have_one_scale_and_its_labels_at_the_edge():
    scores = {"a": 2, "b": 3, "c": 1}
    panels = {title: [np.linspace(10, 90, rounds)] for title, rounds in scores.items()}
    drawing = rounds_grid(panels, {}, "scores")
    labels = Counter(re.findall(r">(\d+)</text>", drawing))
    assert labels == {"0": 4, "1": 3, "2": 3, "50": 1, "100": 1}


def tables(text: str) -> list[list[list[str]]]:
    found = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    return [[row[2:-2].split(" | ") for row in table.splitlines()] for table in found]


def test_every_task_has_a_row_and_every_part_a_mean(page):
    summary, every, _ = tables(page.read_text())
    assert {len(row) for row in every} == {len(every[0])}
    assert [row[0] for row in every[2:82]] == list(SUITES["mt80"].names)
    parts = ["MT30 part", "MT50 part", "MT80"]
    assert [row[0] for row in every[82:]] == [f"**{part}, mean**" for part in parts]
    assert [row[0] for row in summary[2:]] == [f"**{part}**" for part in parts]


def test_means_are_those_of_the_runs(page):
    runs = [Results.load(page.parent / f"s{i}" / "results.json") for i in range(3)]
    means = [run.policy.mean_normalized_score for run in runs]
    of_part = [
        np.mean([run.policy.tasks[name].normalized_score for name in SUITES["mt30"].names])
        for run in runs
    ]
    summary, every, _ = tables(page.read_text())
    row = dict(zip(summary[0], summary[4], strict=True))
    assert row["extracted"] == f"**{np.mean(means):.1f}**"
    assert row["each seed"] == ", ".join(f"{mean:.1f}" for mean in means)
    low, high = map(float, row["95 %"].split(" to "))
    assert low < np.mean(means) < high
    scores = [[score.normalized_score for score in run.policy.tasks.values()] for run in runs]
    middle = np.mean(np.sort(scores, axis=None)[60:-60])
    low, high = map(float, row["IQM 95 %"].split(" to "))
    assert low < middle < high
    assert float(row["IQM"]) == pytest.approx(middle, abs=0.051)
    row = dict(zip(summary[0], summary[2], strict=True))
    assert row["extracted"] == f"**{np.mean(of_part):.1f}**"
    row = dict(zip(every[0], every[2], strict=True))
    assert {"random", "BC, all data", "planner, actor and critic"} <= set(row)


def test_the_page_says_which_method_played_fewer_episodes(page):
    said = "the same episodes (seeds 1000 to 1009), but planner, actor and critic on seed 1000. "
    assert said in page.read_text()


def test_published_figures_are_of_the_part_s_own_models(page):
    summary, *_ = tables(page.read_text())
    column = summary[0].index("PWM 48M, published")
    assert [row[column] for row in summary[2:]] == ["76.8", "85.8", "81.8"]


def test_the_page_says_what_differs_and_takes_the_notes_in(page):
    text = page.read_text()
    assert "world model of 5M parameters (published 48M)" in text
    assert "Meta-World v2 where this project runs v3" in text
    assert "The worst tasks want exploration." in text
    assert "3 seeds, " in text
    assert "BC is behavior cloning" in text
    assert f"results={page}" in text


def test_success_is_shown_in_every_measure_known(page):
    *_, success = tables(page.read_text())
    assert success[0] == ["task", "last step", "any step", "return"]  # the steps are not known
    assert [row[0] for row in success[2:]] == list(SUITES["mt50"].names)
    runs = [Results.load(page.parent / f"s{i}" / "results.json") for i in range(3)]
    scores = [run.policy.tasks["mw-push"] for run in runs]
    (row,) = (row for row in success if row[0] == "mw-push")
    assert row[1] == f"{np.mean([score.success_last for score in scores]):.2f}"
    assert row[3] == f"{np.mean([score.episode_return for score in scores]):.1f}"


def test_pictures_are_there_and_readable(page):
    linked = re.findall(r"!\[.*?\]\((.*?)\)", page.read_text())
    assert linked == ["RESULTS_files/rounds.svg", "RESULTS_files/tasks.svg",
                      "RESULTS_files/walker-run.jpg"]  # fmt: skip
    for name in linked[:2]:
        ElementTree.parse(page.parent / name)
    assert (page.parent / linked[2]).read_bytes() == b"a picture"
    assert (page.parent / linked[1]).stat().st_size < 1e6


def test_one_seed_of_a_few_tasks_makes_a_page(tmp_path):
    run = make_run(tmp_path / "run", get_suite("walker-run,mw-push"), 0)
    assert main(["report", f"run={run}", f"results={tmp_path / 'R.md'}"]) == 0
    text = (tmp_path / "R.md").read_text()
    assert "**all 2 tasks**" in text
    assert "1 seed, " in text
    assert "Curves" not in text


def test_a_page_without_cloning_does_not_explain_it(tmp_path):
    run = make_run(tmp_path / "run", get_suite("walker-run,mw-push"), 0, cloned=False)
    assert main(["report", f"run={run}", f"results={tmp_path / 'R.md'}"]) == 0
    assert "BC is behavior cloning" not in (tmp_path / "R.md").read_text()


def test_parts():
    assert list(parts_of(SUITES["mt30"].names)) == ["MT30"]
    assert list(parts_of(SUITES["mt50"].names)) == ["MT50"]
    assert list(parts_of(SUITES["mt80"].names)) == ["MT30 part", "MT50 part", "MT80"]
    assert list(parts_of(SUITES["quick"].names)) == ["all 5 tasks"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run=[{a},{b}]"], "an HTML page is of one run"),
        (["run={a}", "grow={a}"], "grow= is for a results page"),
        (["run=[]", "results={t}/R.md"], "run= is empty"),
        (["run=3", "results={t}/R.md"], "must be a directory or a list"),
        (["run=[{a},{a}]", "results={t}/R.md"], "names a directory twice"),
        (["run=[{a},{t}/none]", "results={t}/R.md"], "there is no run directory"),
        (["run=[{a},{b}]", "results={t}/R.html"], "must be a Markdown file"),
        (["run={a}", "grow={t}", "results={t}/R.md"], "has no complete round"),
        (["run={a}", "strips={t}/none", "results={t}/R.md"], "no directory .* of strips"),
        (["run={a}", "notes={t}/none", "results={t}/R.md"], "no file .* of notes"),
        (["run={c}", "grow={a}", "results={t}/R.md"], "lack task mw-push"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, capsys, words, message):
    suite = get_suite("walker-run")
    places = {"t": tmp_path}
    for seed, name in enumerate("ab"):
        places[name] = make_run(tmp_path / name, suite, seed)
    places["c"] = make_run(tmp_path / "c", get_suite("walker-run,mw-push"), 3)
    assert main(["report", *(word.format(**places) for word in words)]) == 1
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert said.count("\n") == 1
    assert not list(tmp_path.glob("R*"))
