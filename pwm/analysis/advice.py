"""From measurements of tasks to what a person can do: rules with thresholds, written in one place.

A difference counts where it is both of a size that matters and beyond some standard errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

ERRORS = 2.0  # standard errors beyond which what is found of a task is taken for true
PAIR_ERRORS = 3.0  # likewise of a pair, of which there are many
FALLING = 0.05  # of a task's held-out loss, which a few updates on it alone take away
OVERFITTED = 1.5  # times the loss of training windows
POOR_R2 = 0.5  # of rewards of held-out episodes
HARMS = 0.05  # of a task's held-out loss, which updates on another one add
OPPOSES = -0.1  # cosine
DOMINATES = 3.0  # times the median norm of the tasks' gradients
HELPS = 0.5  # of what updates on the task itself take away
CLEAR = 0.25  # silhouette from which on there are groups (Kaufman and Rousseeuw 1990)
GROUPS = "groups={out}/groups/{by}.json"


class Evidence(NamedTuple):
    """What was measured of K tasks; a matrix is None where that was left out.

    Attributes:
        names: of the tasks.
        held_out: (K, windows) losses.
        train: (K, windows) losses.
        reward_r2: (K,) at the most steps, NaN where rewards do not vary.
        cosine, cosine_deviation: (K, K) of gradients by all shared weights.
        norm: (K,) of these gradients.
        gain, gain_deviation: (K, K); ``gain[i, j]`` is what updates on i took from the held-out
            loss of j, relative to it.
        silhouettes: of the groups by each measure, by its name; those of one group are left out.
    """

    names: Sequence[str]
    held_out: np.ndarray
    train: np.ndarray
    reward_r2: np.ndarray
    cosine: np.ndarray
    cosine_deviation: np.ndarray
    norm: np.ndarray
    gain: np.ndarray | None
    gain_deviation: np.ndarray | None
    silhouettes: Mapping[str, float]


class Finding(NamedTuple):
    """What a rule found.

    Attributes:
        rule: its name.
        tasks: that it is about.
        found: a sentence.
        action: what to try, a sentence.
    """

    rule: str
    tasks: tuple[str, ...]
    found: str
    action: str


def findings(evidence: Evidence, out: str = "OUT") -> list[Finding]:
    """All that the rules say, what matters most first.

    Args:
        evidence: the measurements.
        out: the analysis's directory, for the names of files.
    """
    return [finding for rule in _RULES for finding in rule(evidence, out)]


def is_falling(evidence: Evidence) -> np.ndarray:
    """(K,) whether a few updates on a task alone lower its held-out loss."""
    if evidence.gain is None or evidence.gain_deviation is None:
        return np.zeros(len(evidence.names), bool)
    gain, deviation = evidence.gain.diagonal(), evidence.gain_deviation.diagonal()
    return (gain > FALLING) & (gain > ERRORS * deviation)


def is_overfitted(evidence: Evidence) -> np.ndarray:
    """(K,) whether held-out windows have far larger losses than those of training."""
    held_out, train = evidence.held_out, evidence.train
    error = np.sqrt(_squared_error(held_out) + OVERFITTED**2 * _squared_error(train))
    beyond = held_out.mean(1) - OVERFITTED * train.mean(1)
    return beyond > ERRORS * error


def _squared_error(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows.var(1, ddof=1) / rows.shape[1])


def _undertrained(evidence: Evidence, out: str) -> Iterator[Finding]:
    for k in np.flatnonzero(is_falling(evidence)).tolist():
        assert evidence.gain is not None
        yield Finding(
            "undertrained",
            (evidence.names[k],),
            f"{evidence.names[k]} is under-trained: a few updates on it alone took "
            f"{evidence.gain[k, k]:.0%} from its held-out loss.",
            "Train longer (steps=), or have it drawn more often (balance=progress).",
        )


def _overfitted(evidence: Evidence, out: str) -> Iterator[Finding]:
    ratio = evidence.held_out.mean(1) / evidence.train.mean(1)
    for k in np.flatnonzero(is_overfitted(evidence)).tolist():
        yield Finding(
            "overfitted",
            (evidence.names[k],),
            f"{evidence.names[k]} is overfitted: its held-out loss is {ratio[k]:.1f} times that of "
            "training windows.",
            "Collect more episodes of it; more updates on these do not help.",
        )


def _hard(evidence: Evidence, out: str) -> Iterator[Finding]:
    poor = evidence.reward_r2 < POOR_R2
    for k in np.flatnonzero(poor & ~is_falling(evidence) & ~is_overfitted(evidence)).tolist():
        yield Finding(
            "hard",
            (evidence.names[k],),
            f"{evidence.names[k]} is predicted poorly (R2 of held-out rewards "
            f"{evidence.reward_r2[k]:z.2f}), and neither updates on it alone nor its training "
            "windows say why.",
            "Look at its rewards and observations (pwm data info), then try a larger model=.",
        )


def _harmed(evidence: Evidence, out: str) -> Iterator[Finding]:
    if evidence.gain is None or evidence.gain_deviation is None:
        return
    gain, deviation = evidence.gain, evidence.gain_deviation
    harmed = (gain < -HARMS) & (gain < -PAIR_ERRORS * deviation)
    np.fill_diagonal(harmed, False)
    for j in np.flatnonzero(harmed.any(0)).tolist():
        sources = [evidence.names[i] for i in np.flatnonzero(harmed[:, j]).tolist()]
        yield Finding(
            "harmed",
            (evidence.names[j], *sources),
            f"Updates on {', '.join(sources)} alone add up to {-gain[harmed[:, j], j].min():.0%} "
            f"to the held-out loss of {evidence.names[j]}.",
            f"Train them apart: {GROUPS.format(out=out, by='transfer')}.",
        )


def are_opposed(cosine: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """(K, K) whether gradients surely point away from each other."""
    opposed: np.ndarray = (cosine < OPPOSES) & (cosine < -PAIR_ERRORS * deviation)
    return opposed


def _opposed(evidence: Evidence, out: str) -> Iterator[Finding]:
    opposed = are_opposed(evidence.cosine, evidence.cosine_deviation)
    for i, j in np.argwhere(np.triu(opposed)).tolist():
        yield Finding(
            "opposed",
            (evidence.names[i], evidence.names[j]),
            f"The gradients of {evidence.names[i]} and {evidence.names[j]} oppose each other "
            f"(cosine {evidence.cosine[i, j]:z.2f}).",
            f"aggregate=upgrad, or groups by gradients: {GROUPS.format(out=out, by='gradient')}.",
        )


def _dominating(evidence: Evidence, out: str) -> Iterator[Finding]:
    median = float(np.median(evidence.norm))
    for k in np.flatnonzero(evidence.norm > DOMINATES * median).tolist() if median > 0 else ():
        yield Finding(
            "dominating",
            (evidence.names[k],),
            f"{evidence.names[k]} dominates: its gradient is {evidence.norm[k] / median:.1f} times "
            "the median task's.",
            "Weigh tasks: balance=gradnorm, or balance=uncertainty.",
        )


def _helped(evidence: Evidence, out: str) -> Iterator[Finding]:
    if evidence.gain is None or evidence.gain_deviation is None:
        return
    gain, own = evidence.gain, evidence.gain.diagonal()
    sure = (gain > PAIR_ERRORS * evidence.gain_deviation) & (own > 0)
    helps = sure & (gain > HELPS * own)
    np.fill_diagonal(helps, False)
    for i, j in np.argwhere(np.triu(helps & helps.T)).tolist():
        yield Finding(
            "helpful",
            (evidence.names[i], evidence.names[j]),
            f"{evidence.names[i]} and {evidence.names[j]} help each other: updates on either do "
            f"{min(gain[i, j] / own[j], gain[j, i] / own[i]):.0%} or more of what own ones do.",
            "Keep them in one model.",
        )


def _groups(evidence: Evidence, out: str) -> Iterator[Finding]:
    found = evidence.silhouettes
    best = max(found, key=lambda by: found[by]) if found else None
    if best is not None and found[best] >= CLEAR:
        yield Finding(
            "groups",
            (),
            f"The tasks fall into groups by {best.replace('_', ' ')} (silhouette "
            f"{found[best]:.2f}).",
            f"Compare one model with a model per group: {GROUPS.format(out=out, by=best)}.",
        )
    else:
        yield Finding("no groups", (), "The tasks fall into no clear groups.", "Keep one model.")


_RULES: tuple[Callable[[Evidence, str], Iterator[Finding]], ...] = (
    _undertrained,
    _overfitted,
    _hard,
    _harmed,
    _opposed,
    _dominating,
    _helped,
    _groups,
)
