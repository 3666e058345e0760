"""The report page: what it must contain, what it must never contain, and how it takes bad input."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pwm.core.errors import PwmError
from pwm.core.suites import Suite, get_suite
from pwm.data.episode import Episode
from pwm.data.store import EpisodeStore
from pwm.evaluation.scores import MethodScore, Results, TaskScore, score_data, score_task
from pwm.reporting import html_page as report_module
from pwm.reporting import plots
from pwm.reporting.html_page import report

DASH = "\N{EN DASH}"
CELLS = 18  # of the table of all figures: task, 5 of the policies, 5 baselines, 6 published, marks
VOID = {"meta", "img", "br", "link", "input", "hr"}
PNG = bytes.fromhex("89504e470d0a1a0a") + b"not a real picture"


class Page(HTMLParser):
    """Tags, their attributes and the text of a page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in {"style", "title"}:
            self.words.append(data)
        if self._open and {"td", "th"} & set(self._open):
            self.rows[-1][-1] = " ".join([*self.rows[-1][-1].split(), *data.split()])

    def find(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def row(self, first: str, cells: int) -> list[str]:
        (found,) = [r for r in self.rows if r[:1] == [first] and len(r) == cells]
        return found


def make_results(suite: Suite, episodes: int = 6) -> Results:
    rng = np.random.default_rng(0)
    methods: dict[str, dict[str, TaskScore]] = {
        name: {} for name in ("extracted", "random", "bc", "bc_best", "data_mean", "data_best")
    }
    for task in suite:
        skill = rng.uniform(0.3, 1.0)
        for name, share in (("extracted", 1.0), ("random", 0.1), ("bc", 0.6), ("bc_best", 0.8)):
            returns = np.clip(rng.normal(1000 * skill * share, 30, episodes), 0, 1000)
            success = (rng.random(episodes) < skill * share).astype(float)
            methods[name][task.name] = score_task(task, returns, success, success)
        data = rng.uniform(0, 1000, 50)
        mean, best = score_data(task, data, data > 500, data > 400)
        methods["data_mean"][task.name], methods["data_best"][task.name] = mean, best
    extracted = methods.pop("extracted")
    return Results.build(
        suite,
        extracted,
        methods,
        episodes=episodes,
        seeds=range(episodes),
        settings={"a": {"b": 1}},
    )


def write_lines(path: Path, rows: list[dict[str, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_run(run: Path, suite_name: str) -> Results:
    """A run directory with every part but data and videos."""
    suite = get_suite(suite_name)
    results = make_results(suite)
    run.mkdir(exist_ok=True)
    results.save(run / "results.json")
    write_lines(
        run / "world_model" / "metrics.jsonl",
        [
            {"step": i, "reward_loss": 4.0 * 0.98**i, "consistency_loss": 1 / (i + 1), "lr": 1e-3}
            for i in range(0, 300, 2)
        ],
    )
    write_lines(
        run / "policies" / "metrics.jsonl",
        [
            {"step": i}
            | {f"{name}/imagined_return": i + k for k, name in enumerate(suite.names)}
            | {f"{name}/critic_loss": 5.0 - k for k, name in enumerate(suite.names)}
            for i in range(0, 40, 4)
        ],
    )
    diagnostics = {
        name: {
            "latent_error": {"1": 0.01, "4": 0.02, "16": 0.123 + k / 1000},
            "reward_r2": {"1": 0.99, "4": 0.95, "16": None},
        }
        for k, name in enumerate(suite.names)
    }
    world_model = run / "world_model"
    (world_model / "diagnostics.json").write_text(
        json.dumps({"steps": [1, 4, 16], "tasks": diagnostics})
    )
    (world_model / "config.yaml").write_text("model: tiny\nsteps: 3000\n")
    facts = {"command": "pretrain", "git": "abc123def", "seed": 7, "seconds": 3725.0}
    (world_model / "run.json").write_text(json.dumps(facts | {"versions": {"torch": "2.99.1"}}))
    return results


def add_data(run: Path, suite: Suite) -> None:
    with EpisodeStore.create(run / "data", suite) as store:
        store.add_source("s", {"made_by": "test"})
        for task in suite:
            episodes = [
                Episode(
                    obs=np.zeros((3, task.obs_dim), np.float32),
                    action=np.zeros((2, task.action_dim), np.float32),
                    reward=np.full(2, 10.0 * i, np.float32),
                    terminated=np.zeros(2, bool),
                    success=np.zeros(2, bool),
                )
                for i in range(7)
            ]
            store.append(task.name, episodes, "s")


def read(run: Path) -> tuple[str, Page]:
    path = report(run)
    assert path == run / "report.html"
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    run = tmp_path_factory.mktemp("quick") / "run"
    results = make_run(run, "quick")
    add_data(run, get_suite("quick"))
    (run / "videos").mkdir()
    (run / "videos" / "mw-reach_0.mp4").write_bytes(b"\0\0\0 ftypisom")
    (run / "videos" / "pendulum-swingup_0.png").write_bytes(PNG)
    return run, results


@pytest.fixture(scope="module")
def whole(quick: tuple[Path, Results]) -> tuple[str, Page]:
    return read(quick[0])


def test_page_holds_every_task_and_number(
    quick: tuple[Path, Results], whole: tuple[str, Page]
) -> None:
    (_, results), (_, page) = quick, whole
    assert f"{results.policy.mean_normalized_score:.1f} mean normalized score" in page.text
    low, high = results.policy.mean_ci95 or (0.0, 0.0)
    assert f"95 % interval {low:.1f} to {high:.1f}" in page.text
    for task, score in results.policy.tasks.items():
        row = page.row(task, CELLS)
        interval, returns = score.normalized_ci95, score.return_ci95
        assert interval is not None and returns is not None
        assert row[1] == f"{score.normalized_score:.1f} {interval[0]:.1f} to {interval[1]:.1f}"
        assert row[2] == f"{score.episode_return:,.1f} {returns[0]:,.1f} to {returns[1]:,.1f}"
        assert row[3] == (DASH if score.success_last is None else f"{score.success_last:.2f}")
        others = [results.methods[name].tasks[task] for name in list(results.methods)[1:]]
        steps = score.steps_to_success
        assert row[5] == (DASH if steps is None else f"{steps:.1f}")
        assert row[6:11] == [f"{other.normalized_score:.1f}" for other in others]
    for name, method in list(results.methods.items())[1:]:
        assert f"{method.mean_normalized_score:.1f}" in page.row("Mean", CELLS), name


def test_page_shows_published_figures_with_what_differs(whole: tuple[str, Page]) -> None:
    _, page = whole
    head = next(row for row in page.rows if row[:1] == ["Task"])
    labels = ["PWM 48M mt80", "PWM 48M (H=3) mt80", "TD-MPC2 48M mt80"]
    labels += [f"{name} expert single-task" for name in ("TD-MPC2", "SAC", "DreamerV3")]
    assert head[11:] == [*labels, "Differs"]
    reach, pendulum = (page.row(name, CELLS) for name in ("mw-reach", "pendulum-swingup"))
    assert (reach[11], reach[13], reach[17]) == ("80.0", "80.0", "mdve")
    assert (pendulum[11], pendulum[17]) == ("88.8", "mde")
    assert "e = 6 episodes (published 10)" in page.text
    assert "Meta-World v2 where this project runs v3" in page.text
    assert "48M parameters" in page.text


def test_page_shows_how_the_run_was_made(whole: tuple[str, Page]) -> None:
    _, page = whole
    assert "1 h 2 min" in page.text and "abc123def" in page.text
    assert page.row("versions.torch", 2)[1] == "2.99.1" and page.row("a.b", 2)[1] == "1"
    assert "model: tiny steps: 3000" in page.text


def test_page_draws_curves_diagnostics_and_data(whole: tuple[str, Page]) -> None:
    _, page = whole
    labels = [attributes["aria-label"] for attributes in page.find("svg")]
    assert all(labels)
    assert {"reward_loss while pretraining", "lr while pretraining"} <= set(labels)
    for task in get_suite("quick").names:
        assert f"imagined_return on {task} by updates" in labels
        assert f"Histogram of 7 episode returns in the data of {task}" in labels
    assert "critic_loss of every task, and the median" in labels
    row = [cells for cells in page.rows if cells[:1] == ["mw-reach"]][-1]
    assert row[1:] == ["0.010", "0.020", "0.123", "0.990", "0.950", DASH]
    assert "No data in this run" not in page.text


def test_page_is_self_contained(whole: tuple[str, Page]) -> None:
    text, page = whole
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link", text.replace("data:", ""))
    for tag, attributes in page.tags:
        for key in ("src", "href", "xlink:href"):
            value = attributes.get(key) or "#"
            assert value.startswith(("#", "data:")), f"{tag} {key}={value[:40]}"


def test_page_is_accessible_and_valid(whole: tuple[str, Page]) -> None:
    _, page = whole
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for key in ("href", "aria-labelledby"):
            value = (attributes.get(key) or "").removeprefix("#")
            assert not value or value in ids, f"{key}={value} points nowhere"
    assert all(attributes.get("scope") in {"row", "col"} for attributes in page.find("th"))
    assert [image["alt"] for image in page.find("img")] == [
        "Frames of an evaluation episode of pendulum-swingup"
    ]
    assert page.find("video")[0]["aria-label"] == "Video of an evaluation episode of mw-reach"
    assert page.find("html")[0]["lang"] == "en"
    assert "width=device-width" in (page.find("meta")[1]["content"] or "")


def test_plots_use_the_colours_of_the_page(whole: tuple[str, Page]) -> None:
    text, _ = whole
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.S)
    assert drawings
    for drawing in drawings:
        assert not re.search(r"#[0-9a-f]{6}\b", drawing)
    used = set(re.findall(r"var\(--([a-z-]+)\)", text))
    defined = set(re.findall(r"--([a-z-]+):", text))
    assert used <= defined


def test_same_run_gives_the_same_bytes(
    quick: tuple[Path, Results], whole: tuple[str, Page]
) -> None:
    assert read(quick[0])[0] == whole[0]


@pytest.mark.slow
def test_eighty_tasks(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_run(run, "mt80")
    text, page = read(run)
    for task in get_suite("mt80").names:
        assert page.row(task, CELLS)
    header = next(row for row in page.rows if row[:1] == ["Method"])
    assert header[4:] == ["dm_control 30", "Meta-World 50"]
    assert page.row("PWM 48M", 6)[2:] == ["81.8", DASH, "75.1", "85.8"]
    assert len(text) < 3_000_000


def test_only_results_are_needed_and_the_rest_names_its_command(tmp_path: Path) -> None:
    make_results(get_suite("mw-reach")).save(tmp_path / "results.json")
    _, page = read(tmp_path)
    assert page.find("svg") == []
    for command in (
        "pwm collect suite=mw-reach",
        "pwm pretrain suite=mw-reach",
        "pwm extract tasks=mw-reach",
        "pwm evaluate video=",
    ):
        assert command in page.text
    assert "Missing" not in page.text and "None" not in page.text


def test_names_from_files_are_escaped(tmp_path: Path) -> None:
    name = "<script>alert('x')</script>&$"
    score = TaskScore(5.0, None, 50.0, None, None, None, (50.0,))
    method = MethodScore(5.0, None, {name: score})
    Results("<b>s</b>", 1, (0,), {"<i>": "</table>"}, method, {"<u>": method}).save(
        tmp_path / "results.json"
    )
    write_lines(tmp_path / "world_model" / "metrics.jsonl", [{"step": 0, "<em>$_loss": 1.0}])
    diagnostics = {name: {"latent_error": {"1": 0.5}, "reward_r2": {"1": 0.5}}}
    (tmp_path / "world_model" / "diagnostics.json").write_text(
        json.dumps({"steps": [1], "tasks": diagnostics})
    )
    text, page = read(tmp_path)
    assert name in page.text and "</table>" in page.text
    assert not {"script", "i", "u", "em"} & {tag for tag, _ in page.tags}
    assert "<b>s" not in text


def test_a_single_episode_has_no_interval(tmp_path: Path) -> None:
    make_results(get_suite("walker-run"), episodes=1).save(tmp_path / "results.json")
    _, page = read(tmp_path)
    assert "95 % interval" not in page.text and "1 episode per task" in page.text
    assert page.row("walker-run", CELLS)[1].endswith(DASH)


def test_a_baseline_of_fewer_tasks_says_so(tmp_path: Path) -> None:
    suite = get_suite("quick")
    full = make_results(suite)
    part = {"mw-reach": full.baselines["bc"].tasks["mw-reach"]}
    Results.build(suite, full.policy.tasks, {"bc": part}, episodes=6, seeds=range(6)).save(
        tmp_path / "results.json"
    )
    _, page = read(tmp_path)
    assert "BC, all data: mean of 1 of 5 tasks" in page.text


def test_a_planner_beside_others_and_the_time_of_a_decision(tmp_path: Path) -> None:
    results = make_results(get_suite("quick"))
    baselines = results.baselines | {"planner+actor": results.baselines["bc"]}
    replace(results, method="planner", baselines=baselines).save(tmp_path / "results.json")
    times = {"planner": 61.25, "planner+actor": 50.5}
    (tmp_path / "decision_times.json").write_text(json.dumps(times))
    text, page = read(tmp_path)
    assert "mean normalized score of planning with the policy prior and Q ensemble" in page.text
    assert "planner, prior and Q 61.250; planner, actor and critic 50.500." in page.text
    assert page.row("mw-reach", CELLS + 1)
    assert "--c:var(--planner-actor)" in text


def test_rows_that_differ_in_nothing_have_no_marks(tmp_path: Path) -> None:
    results = make_results(get_suite("walker-run"), episodes=10)
    settings = {"world_model": "48M", "data_rows": {"walker-run": 23_000 * 501}}
    replace(results, settings=settings).save(tmp_path / "results.json")
    _, page = read(tmp_path)
    assert page.row("walker-run", CELLS)[-1] == ""
    assert "No row differs from the published multi-task figures" in page.text


def test_videos_beyond_the_cap_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_results(get_suite("quick")).save(tmp_path / "results.json")
    (tmp_path / "videos").mkdir()
    for task in ("pendulum-swingup", "mw-reach"):
        (tmp_path / "videos" / f"{task}_0.mp4").write_bytes(bytes(600))
    (tmp_path / "videos" / "mw-reach_1 #b.mp4").write_bytes(bytes(600))
    monkeypatch.setattr(report_module, "EMBED_LIMIT", 1000)
    _, page = read(tmp_path)
    sources = [video["src"] or "" for video in page.find("video")]
    assert sources[0].startswith("data:video/mp4;base64,AAAA")
    assert sources[1:] == ["videos/mw-reach_1%20%23b.mp4", "videos/pendulum-swingup_0.mp4"]
    assert "2 of 3 files are linked" in page.text


def test_extraction_in_groups_of_tasks(tmp_path: Path) -> None:
    make_results(get_suite("quick")).save(tmp_path / "results.json")
    for task in ("mw-reach", "pendulum-swingup", "walker-run"):
        path = tmp_path / "policies" / "groups" / task / "metrics.jsonl"
        write_lines(path, [{"step": i, f"{task}/imagined_return": 2.0 * i} for i in range(3)])
    _, page = read(tmp_path)
    assert [attributes["aria-label"] for attributes in page.find("svg")] == [
        "imagined_return on mw-reach by updates",
        "imagined_return on pendulum-swingup by updates",
    ]


def test_an_unfinished_last_line_is_left_out(tmp_path: Path) -> None:
    make_run(tmp_path, "mw-reach")
    with (tmp_path / "world_model" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 301, "reward_lo')
    _, page = read(tmp_path)
    assert "reward_loss while pretraining" in [a["aria-label"] for a in page.find("svg")]


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    make_results(get_suite("mw-reach")).save(tmp_path / "results.json")
    write_lines(
        tmp_path / "world_model" / "metrics.jsonl",
        [{"step": 0, "a_loss": float("nan")}, {"step": 1, "a_loss": float("inf")}],
    )
    (tmp_path / "world_model" / "diagnostics.json").write_text(
        '{"steps": [1], "tasks": {"mw-reach": {"latent_error": {"1": Infinity}, "reward_r2": {}}}}'
    )
    text, page = read(tmp_path)
    assert page.row("mw-reach", 3)[1:] == [DASH, DASH]
    assert not re.search(r"\b(nan|inf)\b", text)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("results.json", "{", "not valid JSON"),
        ("results.json", '{"suite": "quick"}', "lack 'episodes'"),
        ("world_model/metrics.jsonl", '{"step": 1}\n{"loss"\n{"step": 2}\n', "line 2 is malformed"),
        ("world_model/metrics.jsonl", '{"loss": 1}\n', "line 1 is malformed"),
        ("world_model/diagnostics.json", '{"steps": [1]}', "diagnostics.json is malformed"),
        ("world_model/run.json", "[]", "not hold a JSON object"),
        ("policies/run.json", "{", "not valid JSON"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, file: str, content: str, message: str) -> None:
    make_results(get_suite("mw-reach")).save(tmp_path / "results.json")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    with pytest.raises(PwmError, match=message) as error:
        report(tmp_path)
    assert file in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "report.html").exists()


def test_no_run_or_no_results(tmp_path: Path) -> None:
    with pytest.raises(PwmError, match="no run directory"):
        report(tmp_path / "absent")
    with pytest.raises(PwmError, match=r"no .*results.json; `pwm evaluate`"):
        report(tmp_path)


def test_damaged_data_leave_the_rest_of_the_page(tmp_path: Path) -> None:
    make_results(get_suite("mw-reach")).save(tmp_path / "results.json")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text("{")
    _, page = read(tmp_path)
    assert "The data could not be read" in page.text and page.row("mw-reach", CELLS)


# Plots


def test_curves_are_thinned_to_means() -> None:
    step = np.arange(1000.0)
    curve = plots.Curve(step, 2 * step).thinned()
    assert len(curve.step) == 200
    assert curve.value == pytest.approx(2 * curve.step)
    assert curve.step[0] == pytest.approx(2.0)
    value = np.where(step == 5, np.nan, step)[:10]
    assert plots.Curve(step[:10], value).thinned().step.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_labels_name_all_tasks_of_few_and_the_worst_of_many() -> None:
    def labels(count: int, low_is_good: bool) -> str:
        lines = {f"task{i:02d}": [0.1, 0.1 + i / 100] for i in range(count)}
        return plots.horizon_plot([1, 4], lines, low_is_good, "alt")

    assert all(f"task{i:02d}" in labels(8, True) for i in range(8))
    assert re.findall(r"task\d\d", labels(20, True)) == ["task17", "task18", "task19"]
    assert re.findall(r"task\d\d", labels(20, False)) == ["task00", "task01", "task02"]
    assert "median" in labels(20, True) and "median" not in labels(2, True)


def test_labels_keep_their_distance() -> None:
    svg = plots.horizon_plot([1, 4], {f"t{i}": [0.1, 0.5] for i in range(8)}, True, "alt")
    labels = re.findall(r"<text [^>]* y=\"([\d.]+)\"[^>]*>(?:t\d|median) +0.5</text>", svg)
    places = sorted(float(y) for y in labels)
    assert len(places) == 9
    assert min(np.diff(places)) > 10
