"""Where the policies of many tasks are saved: a directory a task, or one policy's own directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pwm.actor_critic import Policy, load_policy
from pwm.checkpoint import is_checkpoint
from pwm.errors import PwmError
from pwm.suites import get_suite


def policy_path(directory: Path, task: str) -> Path:
    """Where a task's policy is, in a directory of policies or the policy's own."""
    return directory if is_checkpoint(directory) else directory / task


def find_policies(path: Path, tasks: Sequence[str] | None = None) -> dict[str, Policy]:
    """Policies by task name, in the suite's order.

    Args:
        path: a directory of policies, one a task, or a single policy's directory.
        tasks: the tasks wanted; all that are there by default.

    Raises:
        PwmError: if there is none, or one that was asked for is missing.
    """
    if is_checkpoint(path):
        policy = load_policy(path)
        found = {policy.task.name: policy}
    else:
        children = sorted(path.iterdir()) if path.is_dir() else []
        found = {p.name: load_policy(p) for p in children if is_checkpoint(p)}
    if not found:
        raise PwmError(f"{path} holds no policy; give what `pwm extract` wrote as out=.")
    missing = [name for name in tasks or () if name not in found]
    if missing:
        raise PwmError(
            f"{path} has no policy for {', '.join(missing)}; it has {', '.join(sorted(found))}."
        )
    order = get_suite("mt80").names
    names = tasks or sorted(found, key=lambda n: (order.index(n) if n in order else len(order), n))
    return {name: found[name] for name in names}
