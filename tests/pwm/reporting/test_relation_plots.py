"""What pictures of relations say in text and colour."""

from __future__ import annotations

import re

import numpy as np

from pwm.multitask.clusters import by_place, cluster
from pwm.reporting.relation_plots import leaf_order, matrix_plot, places_plot, tree_plot

NAMES = ["left", "right", "lefter"]
FOUND = cluster(by_place(np.array([[0.0], [9.0], [1.0]])), 2)


def text(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", svg)


def test_names_of_a_hierarchy_have_the_colours_of_their_groups():
    drawn = tree_plot(NAMES, FOUND.merges, FOUND.labels.tolist(), "tree")
    assert {*NAMES, "distance"} < set(text(drawn))
    of = {name: colour for colour, name in re.findall(r"(var\(--[\w-]+\))[^<]*>(\w+)<", drawn)}
    assert of["left"] == of["lefter"] == "var(--extracted)"
    assert of["right"] == "var(--bc-best)"
    assert sorted(leaf_order(FOUND.merges)) == [0, 1, 2]
    assert leaf_order(np.empty((0, 4))) == [0]


def test_small_matrices_are_written_out_and_signs_are_colours():
    values = np.array([[0.5, -0.25], [-0.001, np.nan]])
    drawn = matrix_plot(["a", "b"], ["a", "b"], values, 1.0, "matrix")
    assert {"0.50", "-0.25", "0.00"} < set(text(drawn))
    assert "nan" not in drawn
    assert drawn.count("var(--extracted)") > 0 < drawn.count("var(--bc-best)")


def test_names_in_a_map_are_not_read_as_mathematics():
    places = np.array([[0.0, 1.0], [2.0, 3.0]])
    drawn = places_plot(["a$b$", "c"], places, [0, 1], ("x", "y"), "map")
    assert "a$b$" in text(drawn)
    assert {"x", "y"} < set(text(drawn))
