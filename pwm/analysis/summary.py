"""What measurements say of tasks, as plain data for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pwm.analysis.advice import Evidence, are_opposed, findings
from pwm.core.suites import Task
from pwm.multitask.clusters import (
    Clustering,
    by_angle,
    by_data_map,
    by_gain,
    by_place,
    cluster,
    principal_places,
    silhouette,
)
from pwm.multitask.groups import by_embodiment, grouped
from pwm.multitask.relations import (
    GradientRelations,
    magnitude_similarity,
    relations,
    relative_gains,
)

FORMAT = 1


def summary(
    facts: Mapping[str, Any],
    gradients: Mapping[str, np.ndarray],
    transfer: np.ndarray | None,
    data_map: Mapping[str, np.ndarray] | None,
    map_from: str,
    clusters: int | None,
    out: str,
) -> dict[str, Any]:
    """The content of analysis.json.

    Args:
        facts: of world model and windows.
        gradients: products by layer, (K, P, K, P).
        transfer: held-out losses after updates on each task, (K, K, windows), or None.
        data_map: ``updates`` (n,) and ``losses`` (n, K, windows), or None.
        map_from: ``checkpoints`` or ``training``.
        clusters: number of groups; None for that with the largest silhouette.
        out: the analysis's directory.
    """
    tasks: Sequence[Task] = facts["tasks"]
    names = [task.name for task in tasks]
    whole = relations(np.sum(list(gradients.values()), axis=0))
    gain, gain_error = None, None
    if transfer is not None:
        gain, gain_error = relative_gains(facts["held_out"], transfer)
    distances: dict[str, np.ndarray] = {}
    if (embedding := facts["embedding"]) is not None:
        distances["embedding"] = by_place(embedding)
    distances["gradient"] = by_angle(whole.cosine)
    if gain is not None:
        distances["transfer"] = by_gain(gain)
    mean = deviation = np.empty(0)
    if data_map is not None:
        mean, deviation = data_map["losses"].mean(0), data_map["losses"].std(0)
        distances["data_map"] = by_data_map(mean, deviation)
    found = {name: cluster(distance, clusters) for name, distance in distances.items()}
    evidence = Evidence(
        names, facts["held_out"], facts["train"], _last(facts["quality"], "reward_r2"),
        whole.cosine, whole.deviation, whole.norm, gain, gain_error,
        {k: c.silhouette for k, c in found.items() if c.silhouette is not None},
    )  # fmt: skip
    return {
        "format": FORMAT,
        "checkpoint": facts["checkpoint"],
        "data": facts["data"],
        "tasks": names,
        "held_out": _of_tasks(facts, whole, evidence),
        "embedding": None if embedding is None else _embedding(embedding),
        "gradients": _gradients(whole, gradients),
        "transfer": None if gain is None or gain_error is None else {
            "updates": facts["transfer_updates"],
            "gain": _plain(gain), "deviation": _plain(gain_error),
        },
        "data_map": None if data_map is None else {
            "from": map_from, "updates": _plain(data_map["updates"]),
            "mean": _plain(mean), "deviation": _plain(deviation),
        },
        "clusters": _clusters(names, tasks, distances, found),
        "findings": [finding._asdict() for finding in findings(evidence, out)],
    }  # fmt: skip


def _plain(values: np.ndarray) -> Any:
    """Nested lists of six digits, None for what is not finite."""
    if values.ndim:
        return [_plain(part) for part in values]
    value = values.item()
    return value if isinstance(value, int) else _number(value)


def _number(value: float) -> float | None:
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _last(quality: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """(K,) at the most steps that each task has; NaN where there is no value."""
    found = [each[name][max(each[name], key=int)] for each in quality]
    return np.array([np.nan if value is None else value for value in found])


def _of_tasks(
    facts: Mapping[str, Any], whole: GradientRelations, evidence: Evidence
) -> dict[str, dict[str, Any]]:
    numbers = {
        "loss": evidence.held_out.mean(1),
        "train_loss": evidence.train.mean(1),
        "latent_error": _last(facts["quality"], "latent_error"),
        "reward_r2": evidence.reward_r2,
        "gradient_norm": whole.norm,
        "gradient_agreement": whole.agreement,
    }
    if evidence.gain is not None:
        numbers["own_gain"] = evidence.gain.diagonal()
    columns = {name: _plain(np.asarray(values)) for name, values in numbers.items()}
    return {
        task: {name: values[k] for name, values in columns.items()}
        for k, task in enumerate(evidence.names)
    }


def _embedding(rows: np.ndarray) -> dict[str, Any]:
    places, shares = principal_places(rows)
    return {"places": _plain(places), "variance_shares": _plain(shares)}


def _gradients(whole: GradientRelations, by_layer: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        "cosine": _plain(whole.cosine),
        "deviation": _plain(whole.deviation),
        "norm": _plain(whole.norm),
        "magnitude_similarity": _plain(magnitude_similarity(whole.norm)),
        "layers": {
            "all": _layer(whole),
            **{name: _layer(relations(found)) for name, found in by_layer.items()},
        },
    }


def _layer(found: GradientRelations) -> dict[str, Any]:
    """Numbers of all pairs of tasks in a layer, and the cosines and sizes themselves."""
    pairs = np.triu_indices(len(found.norm), 1)
    opposed = are_opposed(found.cosine, found.deviation)[pairs]
    similar = magnitude_similarity(found.norm)[pairs]
    median = np.median(found.norm)
    return {
        "mean_cosine": _number(found.cosine[pairs].mean()),
        "opposed_share": _number(opposed.mean()),
        "mean_magnitude_similarity": _number(similar.mean()),
        "largest_to_median_norm": _number(found.norm.max() / max(median, 1e-300)),
        "cosine": _plain(found.cosine),
        "norm": _plain(found.norm),
    }


def _clusters(
    names: Sequence[str],
    tasks: Sequence[Task],
    distances: Mapping[str, np.ndarray],
    found: Mapping[str, Clustering],
) -> dict[str, dict[str, Any]]:
    bodies = by_embodiment(tasks)
    label = {name: k for k, group in enumerate(bodies) for name in group}
    by_body = np.array([label[name] for name in names])
    several = 1 < len(bodies) < len(names)
    clusters: dict[str, dict[str, Any]] = {
        name: {
            "groups": grouped(names, each.labels.tolist()),
            "silhouette": each.silhouette,
            "silhouettes": {str(k): _number(s) for k, s in each.silhouettes.items()},
            "merges": _plain(each.merges),
            "embodiment_silhouette": silhouette(distances[name], by_body) if several else None,
        }
        for name, each in found.items()
    }
    clusters["embodiment"] = {"groups": bodies}
    return clusters
