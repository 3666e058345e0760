"""A policy's episode in pictures, with what the world model imagines below."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

import envs
from pwm.core.errors import PwmError
from pwm.evaluation import watch as command
from pwm.evaluation.predictions import Prediction
from pwm.evaluation.watch import WatchConfig, has_display, watch, window_figure
from pwm.evaluation.watch_picture import Moment, Picture

POLICIES = str(Path(__file__).parents[3] / "checkpoints" / "quick" / "policies")
FRAME = np.full((240, 320, 3), 90, np.uint8)


@pytest.fixture
def rendering():
    try:
        envs.render_backend()
    except PwmError as fault:
        pytest.skip(str(fault))


def points(line):
    return [np.asarray(values).tolist() for values in line.get_data()]


def shown(over):
    """The panels of a picture after two of at most nine steps."""
    picture = Picture(Figure(), "task", steps=9, horizon=2, values="units")
    made = [Prediction(np.array([k, 10.0 + k]), np.array([k, 1.0, 2.0])) for k in range(3)]
    picture.show(Moment(FRAME, [3.0, 4.0], made, over))
    return picture, picture._panels


def test_the_plots_show_what_was_received_and_what_is_imagined():
    picture, (reward, return_, value) = shown(over=False)
    assert points(reward.real) == [[0, 1], [3, 4]]
    assert points(reward.imagined) == [[2, 3], [2, 12]]
    assert points(picture._earlier) == [[1], [10]]  # what step 0 imagined of step 1
    assert points(return_.real) == [[0, 1, 2], [0, 3, 7]]
    assert points(return_.imagined) == [[2, 3, 4], [7, 9, 21]]
    assert points(value.real) == [[0, 1, 2], [0, 1, 2]]
    assert points(value.imagined) == [[2, 3, 4], [2, 1, 2]]
    assert "step 2 of 9   return 7.0, next 2 imagined +14.0" in picture._title.get_text()


def test_nothing_is_imagined_beyond_the_end():
    picture, (reward, return_, _) = shown(over=True)
    assert points(reward.imagined) == [[], []]
    assert points(return_.imagined) == [[2], [7]]
    assert "imagined" not in picture._title.get_text()


@pytest.mark.slow
def test_an_mp4_has_a_picture_per_step(rendering, tmp_path):
    out = tmp_path / "new" / "pendulum.mp4"
    config = WatchConfig(POLICIES, "pendulum-swingup", out=str(out), steps=1, horizon=4)
    assert watch(config) == out
    frames = iio.imread(out)
    assert frames.shape == (2, 944, 640, 3)
    scene, plots = frames[-1, 40:500], frames[-1, 540:]
    assert scene.std() > 10
    assert ((plots[..., 0] > 180) & (plots[..., 1] < 110)).sum() < 50  # over: nothing imagined
    assert ((frames[0, 540:, :, 0] > 180) & (frames[0, 540:, :, 1] < 110)).sum() > 50
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_window_is_shown_until_it_is_closed(rendering, monkeypatch):
    figure, pauses = pyplot.figure(), []

    def pause(seconds):
        pauses.append(figure.axes[1].lines[1].get_xdata().tolist())
        if len(pauses) == 2:
            pyplot.close(figure)

    monkeypatch.setattr(pyplot, "pause", pause)
    monkeypatch.setattr(command, "window_figure", lambda: figure)
    config = WatchConfig(POLICIES, "pendulum-swingup", steps=5)
    assert watch(config) is None
    assert pauses == [[], [0]]  # of five


SHOWN = f"""
from matplotlib import pyplot
from PIL import ImageGrab
from pwm.evaluation.watch import WatchConfig, watch

show = pyplot.show


def look_and_close(block=None):
    if block is False:  # of a pause
        return show(block=False)
    figure = pyplot.gcf()
    print(figure.canvas.manager.get_window_title())
    figure.canvas.draw()
    figure.canvas.flush_events()
    ImageGrab.grab().save("screen.png")
    window = figure.canvas.manager.window
    window.after(100, window.destroy)  # what its cross does
    show()


pyplot.show = look_and_close
assert watch(WatchConfig({POLICIES!r}, "pendulum-swingup", steps=3)) is None
print("ended")
"""


@pytest.mark.slow
def test_a_real_window_shows_the_episode_and_ends_when_it_is_closed(rendering, tmp_path):
    if shutil.which("xvfb-run") is None:
        pytest.skip("xvfb-run, which gives a display without a screen, is not installed")
    pytest.importorskip("tkinter", reason="opens a window")
    command = ["xvfb-run", "-a", "-s", "-screen 0 1000x1100x24", sys.executable, "-c", SHOWN]
    root = Path(__file__).parents[3]
    environment = {**os.environ, "MPLBACKEND": "TkAgg", "PYTHONPATH": str(root)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["pwm watch: pendulum-swingup", "ended"]
    screen = iio.imread(tmp_path / "screen.png")[..., :3]
    assert screen.shape == (1100, 1000, 3)
    scene, plots, beside = screen[40:500, :640], screen[540:900, :640], screen[:, 700:]
    assert scene.std() > 10
    assert (plots == 255).all(-1).mean() > 0.8 and (plots < 60).all(-1).any()
    assert (beside == 0).all()
    assert [path.name for path in tmp_path.iterdir()] == ["screen.png"]


def test_without_a_display_there_is_no_window(monkeypatch, capsys):
    monkeypatch.setattr(command.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not has_display()
    assert window_figure() is None
    monkeypatch.setenv("DISPLAY", ":99")
    assert has_display()
    monkeypatch.setattr(pyplot, "figure", Figure)  # of no toolkit
    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    assert window_figure() is None
    assert "matplotlib can open no window on it, so an MP4 is written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (WatchConfig(POLICIES), "has 5 policies; give task=, one of pendulum-swingup, "),
        (WatchConfig(POLICIES, "walker-run"), "has no policy for walker-run; it has pendulum"),
        (WatchConfig("not/there"), "there is no not/there; check the path"),
        (WatchConfig(POLICIES, out="a.gif"), "out=a.gif must be an MP4 file"),
        (WatchConfig(POLICIES, horizon=0), "horizon=0"),
        (WatchConfig(POLICIES, steps=0), "steps=0"),
    ],
)
def test_mistakes_are_one_sentence(config, sentence):
    with pytest.raises(PwmError, match=sentence):
        watch(config)
