"""Groups that were made are found again."""

from __future__ import annotations

import numpy as np
import pytest

from pwm.multitask.clusters import (
    by_angle,
    by_data_map,
    by_gain,
    by_place,
    cluster,
    principal_places,
    silhouette,
)

MADE = [0, 1, 0, 2, 1, 2, 2]


def test_groups_of_places_and_of_angles_are_found_again():
    rng = np.random.default_rng(0)
    centres = 5 * np.eye(3, 6)[MADE]
    rows = centres + 0.3 * rng.standard_normal((7, 6))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for distance in (by_place(rows), by_angle(unit @ unit.T)):
        found = cluster(distance)
        assert found.labels.tolist() == MADE
        assert found.silhouette == max(found.silhouettes.values()) > 0.7
        assert set(found.silhouettes) == {2, 3, 4, 5, 6}


def test_a_silhouette_by_hand():
    """Points 0, 1 and 4, 6, and one alone at 20."""
    distance = by_place(np.array([[0.0], [1.0], [4.0], [6.0], [20.0]]))
    wanted = [1 - 1 / 5, 1 - 1 / 4, 1 - 2 / 3.5, 1 - 2 / 5.5, 0.0]
    assert silhouette(distance, np.array([0, 0, 1, 1, 2])) == pytest.approx(np.mean(wanted))


def test_as_many_groups_as_asked_for():
    distance = by_place(np.array([[0.0], [1.0], [4.0], [6.0]]))
    assert cluster(distance, 2).labels.tolist() == [0, 0, 1, 1]
    assert cluster(distance, 3).labels.tolist() == [0, 0, 1, 2]
    assert cluster(distance, 9).labels.tolist() == [0, 1, 2, 3]
    assert cluster(distance, 1).silhouette is None


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_tasks_for_a_choice_are_one_group(count):
    found = cluster(np.ones((count, count)) - np.eye(count))
    assert found.labels.tolist() == [0] * count
    assert found.silhouette is None


def test_tasks_that_gain_from_each_other_are_near():
    """Two pairs; the second's gains are ten times smaller, and it is harmed by the first."""
    gain = np.array(
        [[0.4, 0.3, 0, 0], [0.4, 0.4, -0.04, -0.04], [0, 0, 0.04, 0.03], [0, 0, 0.04, 0.04]]
    )
    distance = by_gain(gain)
    assert [distance[0, 1], distance[2, 3]] == pytest.approx([0.125, 0.125])
    assert distance[1, 3] == pytest.approx(1.5)
    assert cluster(distance).labels.tolist() == [0, 0, 1, 1]


def test_data_maps_compare_distributions_and_not_the_order_of_samples():
    rng = np.random.default_rng(0)
    mean, deviation = rng.lognormal(size=(2, 1, 50))
    means = np.concatenate([mean, mean[:, ::-1], 10 * mean])
    deviations = np.concatenate([deviation, deviation[:, ::-1], deviation])
    distance = by_data_map(means, deviations)
    assert distance[0, 1] == 0
    assert distance[0, 2] == pytest.approx(np.sqrt(0.5))  # a decade in half of the quantiles


def test_principal_places_keep_distances_in_a_plane():
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((5, 2)) @ rng.standard_normal((2, 9))
    places, shares = principal_places(flat)
    assert by_place(places) == pytest.approx(by_place(flat))
    assert shares.sum() == pytest.approx(1.0)
    assert principal_places(np.ones((2, 3)))[0].tolist() == [[0.0, 0.0], [0.0, 0.0]]
