from __future__ import annotations

import re
import subprocess
import sys

import pytest

from pwm.core.errors import PwmError
from pwm.core.suites import SUITES, Suite, Task, get_suite, get_task, suite_from_table, suite_table

# The benchmark of TD-MPC2 and PWM: ids are positions, with (observation, action) sizes.
MT30 = (
    "walker-stand walker-walk walker-run cheetah-run reacher-easy reacher-hard acrobot-swingup "
    "pendulum-swingup cartpole-balance cartpole-balance-sparse cartpole-swingup "
    "cartpole-swingup-sparse cup-catch finger-spin finger-turn-easy finger-turn-hard fish-swim "
    "hopper-stand hopper-hop walker-walk-backwards walker-run-backwards cheetah-run-backwards "
    "cheetah-run-front cheetah-run-back cheetah-jump hopper-hop-backwards reacher-three-easy "
    "reacher-three-hard cup-spin pendulum-spin"
)
OBS = "24 24 24 17 6 6 6 3 5 5 5 5 8 9 12 12 24 15 15 24 24 17 17 17 17 15 8 8 8 3"
ACTION = "6 6 6 6 2 2 1 1 1 1 1 1 2 2 2 2 5 4 4 6 6 6 6 6 6 4 3 3 2 1"
MT50 = (
    "assembly basketball button-press-topdown button-press-topdown-wall button-press "
    "button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-open "
    "door-close drawer-close drawer-open faucet-open faucet-close hammer handle-press-side "
    "handle-press handle-pull-side handle-pull lever-pull peg-insert-side peg-unplug-side "
    "pick-out-of-hole pick-place pick-place-wall plate-slide plate-slide-side plate-slide-back "
    "plate-slide-back-side push-back push push-wall reach reach-wall shelf-place soccer "
    "stick-push stick-pull sweep-into sweep window-open window-close bin-picking box-close "
    "door-lock door-unlock hand-insert"
)


def test_mt30_has_the_published_order_and_sizes():
    table = [(t.name, t.obs_dim, t.action_dim) for t in SUITES["mt30"]]
    assert table == list(
        zip(MT30.split(), map(int, OBS.split()), map(int, ACTION.split()), strict=True)
    )
    assert (SUITES["mt30"].obs_dim, SUITES["mt30"].action_dim) == (24, 6)
    assert {task.episode_length for task in SUITES["mt30"]} == {500}


def test_mt80_is_mt30_followed_by_metaworlds_fifty():
    assert SUITES["mt80"].names == (*MT30.split(), *(f"mw-{name}" for name in MT50.split()))
    assert (SUITES["mt80"].obs_dim, SUITES["mt80"].action_dim) == (39, 6)
    assert SUITES["mt50"].names == SUITES["mt80"].names[30:]
    sizes = {(t.obs_dim, t.action_dim, t.episode_length) for t in SUITES["mt50"]}
    assert sizes == {(39, 4, 100)}
    assert [SUITES["mt80"].id(name) for name in ("walker-stand", "mw-assembly")] == [0, 30]


def test_every_task_repeats_actions_twice():
    assert {task.action_repeat for task in SUITES["mt80"]} == {2}


def test_quick_suite():
    assert SUITES["quick"].names == (
        "mw-reach",
        "mw-button-press-topdown",
        "mw-drawer-close",
        "pendulum-swingup",
        "cartpole-balance",
    )


def test_discount_heuristic():
    assert get_task("walker-run").discount == pytest.approx(0.99)
    assert get_task("mw-push").discount == pytest.approx(0.95)
    assert Task("short", "dmcontrol", 1, 1, 10).discount == pytest.approx(0.95)
    assert Task("long", "dmcontrol", 1, 1, 5000).discount == pytest.approx(0.995)


def test_normalized_score():
    assert get_task("walker-run").normalized_score(812.0, 0.0) == pytest.approx(81.2)
    assert get_task("mw-push").normalized_score(812.0, 0.75) == 75.0


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("walker-run", ("walker-run",)),
        ("walker-run,mw-push", ("walker-run", "mw-push")),
        (" mw-push , walker-run ", ("mw-push", "walker-run")),
        (["mw-push", "walker-run"], ("mw-push", "walker-run")),
    ],
)
def test_a_suite_of_chosen_tasks_keeps_their_order(spec, names):
    suite = get_suite(spec)
    assert suite.names == names
    assert suite.name == ",".join(names)
    assert [suite.id(name) for name in names] == list(range(len(names)))


def test_named_suites_are_found():
    assert all(get_suite(name) is suite for name, suite in SUITES.items())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("walker-rum", "did you mean 'walker-run'"),
        ("mt3", "did you mean 'mt30'"),
        ("walker-run,mw-reech", "did you mean 'mw-reach'"),
        ("walker-run,walker-run", "named twice"),
        ("", "no task was named"),
        ([], "no task was named"),
        (",", "no task was named"),
        (5, "5"),
        ([1, 2], "1"),
        ({"walker-run": 3}, "walker-run"),
        ([["walker-run"]], "walker-run"),
    ],
)
def test_wrong_suites_are_refused_in_a_sentence(spec, words):
    with pytest.raises(PwmError, match=re.escape(words)):
        get_suite(spec)


def test_membership_and_lookup():
    suite = SUITES["quick"]
    assert "mw-reach" in suite
    assert "walker-run" not in suite
    assert suite["mw-reach"] is get_task("mw-reach")
    assert [task.name for task in suite] == list(suite.names)
    assert len(suite) == 5
    with pytest.raises(PwmError, match="did you mean 'mw-reach'"):
        suite.id("mw-reac")
    with pytest.raises(PwmError, match="unknown task"):
        get_task("nothing-like-it")


def test_table_round_trip():
    suite = Suite("own", (get_task("mw-push"), Task("mine", "dmcontrol", 7, 2, 33, 4)))
    again = suite_from_table(suite_table(suite))
    assert (again.name, again.tasks) == (suite.name, suite.tasks)


def test_importing_suites_needs_neither_simulator_nor_torch():
    code = (
        "import sys, pwm.core.suites; "
        "assert not {'torch', 'mujoco', 'dm_control', 'metaworld', 'gymnasium'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
