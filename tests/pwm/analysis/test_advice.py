"""Each rule on data made for it, and on data that it must not speak of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pwm.analysis.advice import Evidence, Finding, findings

NAMES = ("a", "b", "c")


def evidence(**changes: Any) -> Evidence:
    """Three tasks about which there is nothing to say."""
    losses = np.tile([0.9, 1.1], (3, 8))
    calm: dict[str, Any] = {
        "names": NAMES, "held_out": losses, "train": losses, "reward_r2": np.full(3, 0.9),
        "cosine": np.eye(3), "cosine_deviation": np.full((3, 3), 0.1), "norm": np.ones(3),
        "gain": np.zeros((3, 3)), "gain_deviation": np.full((3, 3), 0.01), "silhouettes": {},
    }  # fmt: skip
    return Evidence(**(calm | changes))


def at(i: int, j: int, value: float, rest: float = 0.0) -> np.ndarray:
    matrix = np.full((3, 3), rest)
    matrix[i, j] = value
    return matrix


def said(given: Evidence, rule: str) -> list[Finding]:
    return [finding for finding in findings(given, "runs/x") if finding.rule == rule]


def test_of_calm_tasks_nothing_is_said_but_that_there_are_no_groups():
    assert [finding.rule for finding in findings(evidence())] == ["no groups"]
    assert [f.rule for f in findings(evidence(gain=None, gain_deviation=None))] == ["no groups"]


def test_undertrained_is_what_updates_of_its_own_improve():
    (found,) = said(evidence(gain=at(1, 1, 0.06)), "undertrained")
    assert found.tasks == ("b",)
    assert "took 6% from its held-out loss" in found.found
    assert not said(evidence(gain=at(1, 1, 0.04)), "undertrained")  # too little
    unsure = evidence(gain=at(1, 1, 0.06), gain_deviation=np.full((3, 3), 0.04))
    assert not said(unsure, "undertrained")


def test_overfitted_is_what_only_training_windows_are_predicted_of():
    held_out = evidence().held_out.copy()
    held_out[2] *= 2
    (found,) = said(evidence(held_out=held_out), "overfitted")
    assert found.tasks == ("c",)
    assert "2.0 times" in found.found
    held_out[2] *= 0.7
    assert not said(evidence(held_out=held_out), "overfitted")
    spread = np.zeros((3, 16))
    spread[:, 0] = 32.0  # a mean of 2, from one window alone
    assert not said(evidence(held_out=spread), "overfitted")


def test_hard_is_what_is_poor_for_no_reason_that_was_measured():
    poor = np.array([0.2, np.nan, 0.9])
    (found,) = said(evidence(reward_r2=poor), "hard")
    assert found.tasks == ("a",)
    assert not said(evidence(reward_r2=poor, gain=at(0, 0, 0.2)), "hard")
    held_out = evidence().held_out * np.array([[2.0], [1.0], [1.0]])
    assert not said(evidence(reward_r2=poor, held_out=held_out), "hard")


def test_harmed_is_what_updates_on_others_make_worse():
    gain = at(0, 2, -0.06) + at(1, 2, -0.10)
    (found,) = said(evidence(gain=gain), "harmed")
    assert found.tasks == ("c", "a", "b")
    assert "add up to 10%" in found.found
    assert "groups=runs/x/groups/transfer.json" in found.action
    assert not said(evidence(gain=at(0, 2, -0.045)), "harmed")
    assert not said(evidence(gain=at(2, 2, -0.10)), "harmed")
    assert not said(evidence(gain=gain, gain_deviation=np.full((3, 3), 0.06)), "harmed")


def test_opposed_are_gradients_that_surely_point_away_from_each_other():
    cosine = np.eye(3) + at(0, 1, -0.4) + at(1, 0, -0.4)
    (found,) = said(evidence(cosine=cosine), "opposed")
    assert found.tasks == ("a", "b")
    assert "cosine -0.40" in found.found
    assert not said(evidence(cosine=cosine, cosine_deviation=np.full((3, 3), 0.16)), "opposed")
    slight = np.eye(3) + at(0, 1, -0.05) + at(1, 0, -0.05)
    assert not said(evidence(cosine=slight, cosine_deviation=np.full((3, 3), 0.001)), "opposed")


def test_dominating_is_a_gradient_far_larger_than_the_median():
    (found,) = said(evidence(norm=np.array([1.0, 2.0, 8.0])), "dominating")
    assert found.tasks == ("c",)
    assert "4.0 times the median" in found.found
    assert not said(evidence(norm=np.array([1.0, 2.0, 5.9])), "dominating")
    assert not said(evidence(norm=np.zeros(3)), "dominating")


def test_helpful_are_tasks_whose_updates_help_both_ways():
    gain = np.diag([0.04, 0.04, 0.04]) + at(0, 1, 0.03) + at(1, 0, 0.025) + at(2, 0, 0.03)
    sure = evidence(gain=gain, gain_deviation=np.full((3, 3), 0.008))
    (found,) = said(sure, "helpful")
    assert found.tasks == ("a", "b")
    assert "62% or more" in found.found
    assert not said(evidence(gain=gain, gain_deviation=np.full((3, 3), 0.02)), "helpful")


@pytest.mark.parametrize(("score", "rule"), [(0.3, "groups"), (0.2, "no groups")])
def test_groups_are_named_where_they_are_clear(score, rule):
    given = evidence(silhouettes={"gradient": score, "data_map": 0.1})
    found = [f for f in findings(given, "runs/x") if "groups" in f.rule]
    assert [f.rule for f in found] == [rule]
    assert ("groups=runs/x/groups/gradient.json" in found[0].action) == (rule == "groups")
