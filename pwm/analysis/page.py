"""The page of an analysis: pictures, numbers and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from pwm.reporting.relation_plots import leaf_order, matrix_plot, places_plot, tree_plot
from pwm.reporting.svg import PALETTE
from pwm.reporting.templating import render

TITLES = {
    "embedding": "task embeddings",
    "gradient": "gradients",
    "transfer": "transfer",
    "data_map": "data maps",
    "embodiment": "embodiment",
}


def page(found: Mapping[str, Any]) -> bytes:
    """The HTML of what :func:`pwm.analysis.summary.summary` gave; all is embedded."""
    names, clusters = found["tasks"], found["clusters"]
    pictures = {
        "embedding": _embedding_picture(found),
        "gradient": _gradient_pictures(found),
        "transfer": _transfer_picture(found),
        "data_map": _data_map_picture(found),
    }
    trees = [
        {
            "title": TITLES[by],
            "svg": Markup(
                tree_plot(
                    names, np.array(each["merges"]), _labels(names, each["groups"]),
                    f"Hierarchy of the tasks by {TITLES[by]}",
                )
            ),
            **each,
        }
        for by, each in clusters.items()
        if "merges" in each
    ]  # fmt: skip
    context = {
        "found": found, "pictures": pictures, "trees": trees, "titles": TITLES, "palette": PALETTE,
    }  # fmt: skip
    return render("analysis.html.j2", context)


def _labels(names: Sequence[str], groups: Sequence[Sequence[str]]) -> list[int]:
    """The group of each task, by its number."""
    of = {name: number for number, group in enumerate(groups) for name in group}
    return [of[name] for name in names]


def _embedding_picture(found: Mapping[str, Any]) -> Markup | None:
    if found["embedding"] is None:
        return None
    first, second = (
        f"component {i}: {share:.0%} of the variance"
        for i, share in enumerate(found["embedding"]["variance_shares"], start=1)
    )
    drawn = places_plot(
        found["tasks"],
        np.array(found["embedding"]["places"]),
        _labels(found["tasks"], found["clusters"]["embedding"]["groups"]),
        (first, second),
        "Map of the task embeddings",
    )
    return Markup(drawn)


def _ordered(found: Mapping[str, Any], by: str, values: Any) -> tuple[list[str], np.ndarray]:
    """A matrix of tasks along the hierarchy of a measure."""
    order = leaf_order(np.array(found["clusters"][by]["merges"]))
    matrix = np.array(values, float)[np.ix_(order, order)]
    return [found["tasks"][k] for k in order], matrix


def _gradient_pictures(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    pictures = []
    for title, name in (
        ("cosine of gradients", "cosine"),
        ("similarity of their sizes", "magnitude_similarity"),
    ):
        names, matrix = _ordered(found, "gradient", found["gradients"][name])
        drawn = matrix_plot(names, names, matrix, 1.0, f"Matrix of tasks: {title}")
        pictures.append({"title": title, "svg": Markup(drawn)})
    return pictures


def _transfer_picture(found: Mapping[str, Any]) -> Markup | None:
    if found["transfer"] is None:
        return None
    names, matrix = _ordered(found, "transfer", found["transfer"]["gain"])
    limit = max(float(np.nanquantile(np.abs(matrix), 0.95)), 1e-6)
    drawn = matrix_plot(
        names, names, matrix, limit, "Matrix of tasks: what updates on a row's do for a column's"
    )
    return Markup(drawn)


def _data_map_picture(found: Mapping[str, Any]) -> Markup | None:
    if found["data_map"] is None:
        return None
    deviation, mean = (np.array(found["data_map"][name], float) for name in ("deviation", "mean"))
    samples = np.stack([deviation, mean], -1).clip(min=1e-9)
    drawn = places_plot(
        found["tasks"],
        np.median(samples, 1),
        _labels(found["tasks"], found["clusters"]["data_map"]["groups"]),
        ("deviation of a window's loss over training", "its mean"),
        "Data maps: each task's windows by mean and deviation of their losses over training",
        samples,
    )
    return Markup(drawn)
