"""``pwm compare``: figures of known runs, what is left out, and going on with a comparison."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pwm.core.errors import PwmError
from pwm.locomotion import compare as module
from pwm.locomotion.catalog import ENTRIES, Entry
from pwm.locomotion.compare import CompareConfig, compare
from pwm.locomotion.comparison import (
    Comparison,
    by_seconds,
    by_steps,
    common_time,
    summary,
    tables,
    write_comparison,
)
from pwm.locomotion.published import published_curves
from pwm.locomotion.shac import Shac, ShacConfig
from pwm.locomotion.toys import BallWall, Pendulum
from pwm.locomotion.training import Curve, Run, RunSettings
from pwm.models.actor_critic import ActorCriticSize
from pwm.runtime.metrics import read_metrics


def curve(*means, pace=1.0):
    """Evaluations every 10 steps of two episodes each, whose mean is given."""
    count = len(means)
    return Curve(
        steps=[10 * i for i in range(count)],
        seconds=[pace * i for i in range(count)],
        cpu_seconds=[pace * i / 2 for i in range(count)],
        returns=[[mean - 1, mean + 1] for mean in means],
        finished=True,
    )


RUNS = {
    "pwm": [curve(0, 4, 8, pace=3), curve(0, 6, 10, pace=3), curve(0, 8, 12, pace=3)],
    "ppo": [curve(0, 1, 2), curve(0, 1, 2), curve(0, 1, 2)],
}


def test_lines_over_steps_are_interquartile_means_of_seeds():
    line = by_steps(RUNS["pwm"])
    assert line.x.tolist() == [0, 10, 20]
    assert line.value.tolist() == [0, 6, 10]
    assert line.low[-1] == 8
    assert line.high[-1] == 12
    four = [curve(0, value) for value in (1, 2, 4, 100)]
    assert by_steps(four).value[-1] == 3


def test_lines_over_seconds_have_the_last_evaluation_before():
    assert common_time(RUNS) == 2
    line = by_seconds(RUNS["pwm"], until=4.0)
    assert line.value[0] == 0
    assert line.value[-1] == 6
    assert line.value[line.x < 3].max() == 0


def test_tables_have_equal_steps_and_equal_time():
    found = summary(Comparison({"ant": RUNS}))
    table = tables(found)["ant"]
    assert table[0][3:5] == ["return, equal steps", "return, equal time (2 s)"]
    assert table[1] == ["PWM", "3", "20", "10.0 (8.0 to 12.0)", "0.0 (0.0 to 0.0)", "6", "3"]
    assert table[2] == ["PPO", "3", "20", "2.0 (2.0 to 2.0)", "2.0 (2.0 to 2.0)", "2", "1"]


def test_the_page_says_what_is_left_out_and_what_was_published(tmp_path):
    left_out = {"ant": {"shac": "ant cannot be differentiated"}}
    comparison = Comparison({"ant": RUNS}, left_out)
    page = write_comparison(comparison, summary(comparison), tmp_path).read_text()
    assert "shac is left out: ant cannot be differentiated." in page
    assert "PWM 9,598 in 27,558,852 steps" in page
    assert "10.0 (8.0 to 12.0)" in page
    assert page.count("<svg") == 2
    assert "| PWM | 3 | 20 |" in (tmp_path / "comparison.md").read_text()
    assert json.loads((tmp_path / "comparison.json").read_text())["ant"]["equal_seconds"] == 2
    assert "<svg" in (tmp_path / "ant-steps.svg").read_text()


def test_one_seed_gives_a_line_without_an_interval():
    line = by_steps([curve(0, 4)])
    assert np.array_equal(line.low, line.value)
    assert np.array_equal(line.high, line.value)


def test_published_curves_are_of_known_tasks():
    found = {one.label: one for one in published_curves("humanoid_muscles")}
    assert found["PWM"].best == 5678.7
    assert found["PPO"].best == 4246
    assert found["PPO"].steps == ()
    assert len(found["TD-MPC2"].steps) == 25
    assert published_curves("pendulum") == []


class Counting:
    """Learns nothing, and says how far it is."""

    resumes = False

    def __init__(self):
        self.steps = 0

    def iteration(self):
        self.steps += 4
        return {"of": 1.0}

    def act(self, observation):
        return observation[:, :1] * 0

    def save(self, directory):
        (directory / "saved").touch()


def test_a_run_evaluates_at_even_steps_and_at_its_end(tmp_path):
    def make():
        return Counting()

    run = Run(make, BallWall(2), RunSettings(18, 6, 10), tmp_path, "ball")
    found = run.finish()
    assert found.steps == [0, 8, 12, 20]
    assert (tmp_path / "saved").is_file()
    assert Curve.load(tmp_path) == found
    again = Run(pytest.fail, BallWall(2), RunSettings(18, 6, 10), tmp_path, "ball")
    assert again.finish() == found


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, monkeypatch):
    config = ShacConfig(
        num_envs=2, horizon=4, networks=ActorCriticSize([8], [8], critics=1), critic_iterations=1
    )

    def run(directory):
        def make():
            return Shac(Pendulum(2), config, 48, 0)

        return Run(make, Pendulum(2), RunSettings(48, 16, 2), directory, "pendulum")

    whole = run(tmp_path / "whole").finish()
    iteration, calls = Shac.iteration, []

    def stops(self):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return iteration(self)

    monkeypatch.setattr(Shac, "iteration", stops)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped").finish()
    went_on = run(tmp_path / "stopped").finish()
    assert len(calls) == 7  # four before, the one that was stopped, and the last two
    assert (went_on.steps, went_on.returns) == (whole.steps, whole.returns)
    lines = read_metrics(tmp_path / "stopped" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [8, 16, 24, 32, 40, 48]


class Fixed(BallWall):
    """A simulator without gradients."""

    name, differentiable = "fixed", False


def test_shac_is_left_out_where_there_are_no_gradients(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(ENTRIES, "fixed", Entry(__name__, "Fixed", "a wall"))
    config = CompareConfig(tasks=["fixed", "ball_wall"], out=str(tmp_path))
    monkeypatch.setattr("pwm.locomotion.compare.make_simulation", made)
    chosen, left_out = module._chosen(config, "cpu")
    assert chosen == {"fixed": ["pwm", "ppo", "sac"], "ball_wall": config.methods}
    assert left_out == {"fixed": {"shac": "fixed cannot be differentiated"}}
    assert "shac is left out" in capsys.readouterr().err
    with pytest.raises(PwmError, match="no method of methods= can learn fixed"):
        module._chosen(CompareConfig(tasks=["fixed"], methods=["shac"], out="x"), "cpu")


def made(name, num_envs, device):
    return {"fixed": Fixed, "ball_wall": BallWall}[name](num_envs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": []}, "no task was named"),
        ({"tasks": ["pendulum", "pendulum"]}, "a task is named twice"),
        ({"seeds": 0}, "seeds=0 must be at least 1"),
        ({"methods": ["ppo", "sca"]}, "there is no method sca"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message, tmp_path):
    with pytest.raises(PwmError, match=message):
        CompareConfig(**{"tasks": ["pendulum"], "out": str(tmp_path)} | changes).validate()


def test_seeds_and_methods_can_be_added_to_a_comparison(tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(
        "pwm.locomotion.compare.make_learner",
        lambda method, *rest: made.append((method, rest[-1])) or Counting(),
    )

    def config(**changes):
        return CompareConfig(
            **{"tasks": ["ball_wall"], "out": str(tmp_path), "steps": 8, "device": "cpu"} | changes
        )

    compare(config(methods=["shac"], seeds=1))
    page = compare(config(methods=["shac", "pwm"], seeds=2))
    assert made == [("shac", 0), ("pwm", 0), ("shac", 1), ("pwm", 1)]
    assert page == tmp_path / "comparison.html"
    said = " ".join(capsys.readouterr().err.split())
    assert "PWM" in said and f"Comparison: {page}" in said
    with pytest.raises(PwmError, match="steps: 8 -> 9"):
        compare(config(methods=["shac"], steps=9))
