"""Meta-World's episodes under other protocols than the benchmark's.

The benchmark, as TD-MPC2 and PWM, plays 100 decision steps of two control steps each (``100x2``);
Meta-World's own protocol is 500 of one (``500x1``). Scores of one are no scores of the other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pwm.core.errors import PwmError
from pwm.core.suites import SUITES, Suite, Task

_LONGEST = 500  # control steps, after which the simulator ends an episode


def protocol(task: Task) -> str:
    """Decision steps of an episode and control steps of a decision, such as ``100x2``."""
    return f"{task.episode_length}x{task.action_repeat}"


def with_metaworld(suite: Suite, asked: str | None) -> Suite:
    """A suite whose Meta-World tasks have a protocol such as ``500x1``; None changes nothing.

    Raises:
        PwmError: for another form, or more control steps than the simulator takes.
    """
    if asked is None:
        return suite
    form = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", str(asked))
    if form is None or (length := int(form[1])) * (repeat := int(form[2])) > _LONGEST:
        raise PwmError(
            f"metaworld={asked} is no protocol; give decision steps x control steps of each, such "
            f"as 100x2 or 500x1, of at most {_LONGEST} control steps together."
        )
    tasks = (
        replace(task, episode_length=length, action_repeat=repeat)
        if task.domain == "metaworld"
        else task
        for task in suite
    )
    return Suite(suite.name, tuple(tasks))


def other_protocols(tasks: Iterable[Task]) -> dict[str, str]:
    """The protocols of those of the benchmark's tasks that have another one than there, by task."""
    benchmark = SUITES["mt80"]
    return {
        task.name: protocol(task)
        for task in tasks
        if task.name in benchmark and protocol(task) != protocol(benchmark[task.name])
    }


def describe_protocols(protocols: Mapping[str, str]) -> str:
    """A sentence on what :func:`other_protocols` gave; empty if it gave none."""
    benchmark, counts = SUITES["mt80"], Counter[tuple[str, str]]()
    for name, own in protocols.items():
        counts[own, protocol(benchmark[name]) if name in benchmark else "another"] += 1
    parts = [
        f"{own} on {n} task{'s' if n > 1 else ''} (benchmark {usual})"
        for (own, usual), n in counts.items()
    ]
    if not parts:
        return ""
    return f"Protocol: {'; '.join(parts)}, in decision steps x control steps of each."
