from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pwm.core.errors import PwmError
from pwm.core.suites import get_suite
from pwm.evaluation.scores import Results, score_task
from pwm.reporting.html_page import report
from pwm.reporting.policies_picture import policies_picture

POLICIES = Path(__file__).parents[3] / "checkpoints" / "quick" / "policies"


@pytest.fixture
def run(tmp_path) -> Path:
    """The results of two tasks that have shipped policies."""
    suite = get_suite(["pendulum-swingup", "mw-reach"])
    scores = {task.name: score_task(task, [500.0, 700.0], [1.0, 0.0]) for task in suite}
    Results.build(suite, scores, {}, episodes=2, seeds=[1000, 1001]).save(tmp_path / "results.json")
    return tmp_path


def test_a_row_of_frames_per_task_under_its_score(run, monkeypatch):
    def film(agent, task, seed, steps):
        assert seed == 1000
        shade = 60 if task.name == "mw-reach" else 200
        return np.full((8, 240, 320, 3), shade, np.uint8)

    monkeypatch.setattr("pwm.evaluation.videos._film", film)
    path = policies_picture(run, POLICIES)
    assert path == run / "policies.png"
    first = path.read_bytes()
    picture = np.asarray(Image.open(io.BytesIO(first)).convert("RGB"))
    assert picture.shape == (2 * (24 + 120), 8 * 160, 3)
    rows = picture[24:144], picture[168:]
    names = get_suite(["pendulum-swingup", "mw-reach"]).names
    assert [int(row[0, 0, 0]) for row in rows] == [60 if n == "mw-reach" else 200 for n in names]
    assert all((row == row[0, 0]).all() for row in rows)  # no label reaches into a row
    assert (picture[:24] < 128).any() and (picture[144:168] < 128).any()  # labels
    assert policies_picture(run, POLICIES).read_bytes() == first
    assert "What the policies do" in report(run).read_text()


def test_where_nothing_can_be_drawn_a_sentence_says_so(run, monkeypatch, capsys):
    def film(agent, task, seed, steps):
        raise PwmError("rendering was asked for but no OpenGL backend works.")

    monkeypatch.setattr("pwm.evaluation.videos._film", film)
    (run / "policies.png").write_bytes(b"of other policies")
    assert policies_picture(run, POLICIES) is None
    error = capsys.readouterr().err
    assert "There is no picture of what the policies do: rendering was asked for" in error
    assert not (run / "policies.png").exists()
    assert "What the policies do" not in report(run).read_text()
