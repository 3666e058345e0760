"""One world model per group of tasks, in as many updates altogether as one for all."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from pwm.core.described_tasks import require_same_environments
from pwm.core.files import write_atomically
from pwm.core.fingerprints import fingerprint
from pwm.core.suites import get_suite
from pwm.data.inspection import open_checked
from pwm.data.problems import BadData
from pwm.multitask.groups import chosen_groups
from pwm.pretraining.config import PretrainConfig
from pwm.runtime.distributed import Ranks
from pwm.runtime.grouped import Member, is_grouped, planned_members, write_members
from pwm.runtime.run_dir import open_run


def pretrain_groups(
    config: PretrainConfig, ranks: Ranks, one: Callable[[PretrainConfig, Ranks], object]
) -> None:
    """Train a world model per group, one after the other, each as a run of its own.

    A group's share of ``steps`` is that of its tasks, so that a task has as many windows as in one
    model for all.

    Args:
        config: with ``groups``.
        ranks: of this process.
        one: trains one world model.

    Raises:
        PwmError: if the groups do not fit the data, or are not those of the run that goes on.
    """
    out = Path(config.out)
    with ranks.raise_together():
        config.validate()
        members = _members(config)
    tasks = sum(len(member.tasks) for member in members)
    with ExitStack() as held:
        with ranks.raise_together():
            if ranks.main:
                made_of = {"groups=": fingerprint([list(member.tasks) for member in members])}
                settled = made_of if is_grouped(out) else ()
                held.enter_context(open_run(out, "pretrain", config, made_of, settled))
                write_members(out, members)
        for number, member in enumerate(members, start=1):
            if ranks.main:
                ranks.print_rank(f"group {number} of {len(members)}: {', '.join(member.tasks)}")
            steps = max(1, round(config.steps * len(member.tasks) / tasks))
            own = replace(
                config, out=str(member.path), suite=list(member.tasks), groups=None, steps=steps
            )
            one(own, ranks)
        if ranks.main:
            _gather_diagnostics(out, members)


def _members(config: PretrainConfig) -> list[Member]:
    store = open_checked(config.data, BadData(config.on_error))
    chosen = store.suite if config.suite is None else get_suite(config.suite, store.suite)
    require_same_environments(chosen, store.suite, store.path)
    groups = chosen_groups(config.groups, list(chosen), config.suite is not None)
    return planned_members(Path(config.out), groups)


def _gather_diagnostics(out: Path, members: list[Member]) -> None:
    """One diagnostics.json of all tasks."""
    found = [json.loads((member.path / "diagnostics.json").read_bytes()) for member in members]
    tasks: dict[str, Any] = {}
    for member, report in zip(members, found, strict=True):
        tasks |= {name: report["tasks"][name] for name in member.tasks}
    content = {"step": sum(report["step"] for report in found), "steps": found[0]["steps"]}
    write_atomically(
        out / "diagnostics.json", json.dumps({**content, "tasks": tasks}, indent=1).encode()
    )
