"""The README stays short, and its pictures small and made from the results page."""

from __future__ import annotations

import pytest
from check_links import ROOT
from PIL import Image
from readme_figures import FIGURES, FRAMES, OURS, PAGE, PWM, STRIP_FRAMES, Table


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("name", ["policies.png", "scores.png"])
def test_pictures_are_small(name):
    assert (FIGURES / name).stat().st_size < 300_000
    assert Image.open(FIGURES / name).width >= 1000


def test_tables_are_read_from_the_results_page():
    page = PAGE.read_text()
    summary, tasks = Table.below(page, "Summary"), Table.below(page, "Every task")
    assert summary.number("MT80", OURS) == 74.0
    assert summary.rows["MT30 part"]["95 %"] == "59 to 61"
    assert tasks.number("walker-walk", PWM) == 98.4
    assert sum("mean" not in row for row in tasks.rows) == 80


def test_the_strip_shows_frames_that_the_page_has():
    tasks = Table.below(PAGE.read_text(), "Every task").rows
    for task, frames in FRAMES.items():
        assert task in tasks and max(frames) < STRIP_FRAMES
        with Image.open(PAGE.with_name("mt80_files") / f"{task}.jpg") as strip:
            assert strip.width % STRIP_FRAMES == 0


def test_the_readme_s_scores_are_those_of_the_results_page():
    summary = Table.below(PAGE.read_text(), "Summary")
    readme = (ROOT / "README.md").read_text()
    rows = {"three seeds | 1M | 80": "MT80", "dm_control part | | 30": "MT30 part",
            "Meta-World part | | 50": "MT50 part"}  # fmt: skip
    for shown, part in rows.items():
        cells = [summary.rows[part][column] for column in (OURS, "BC, best 10 %", PWM)]
        assert f"{shown} | {' | '.join(cells)} |" in readme
