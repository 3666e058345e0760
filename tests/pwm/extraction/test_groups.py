from __future__ import annotations

import pytest

from pwm.core.errors import PwmError
from pwm.core.suites import get_suite
from pwm.extraction.groups import planned_groups
from pwm.runtime.checkpoint import save_checkpoint

TASKS = get_suite("mt30").tasks[:7]
NAMES = [task.name for task in TASKS]


def plan(out, names=NAMES, size=3) -> list[list[str]]:
    suite = get_suite("mt30")
    groups = planned_groups(out, [suite[name] for name in names], lambda tasks: size)
    return [[task.name for task in group] for group in groups]


def finish(out, *names: str) -> None:
    for name in names:
        save_checkpoint(out / name, "policy", {}, {})


def test_tasks_are_cut_in_order_by_a_size_that_may_depend_on_their_number(tmp_path):
    assert plan(tmp_path) == [NAMES[:3], NAMES[3:6], NAMES[6:]]
    asked = []
    planned_groups(tmp_path / "other", TASKS, lambda tasks: asked.append(tasks) or 7)
    assert asked == [7]


def test_a_plan_holds_whatever_fits_later(tmp_path):
    first = plan(tmp_path)
    assert plan(tmp_path, size=1) == first
    finish(tmp_path, *NAMES[:3])
    assert plan(tmp_path, size=2) == first


def test_a_group_that_is_partly_saved_is_learned_as_a_whole(tmp_path):
    first = plan(tmp_path)
    finish(tmp_path, *NAMES[:2])
    assert plan(tmp_path) == first
    finish(tmp_path, *NAMES)
    assert plan(tmp_path) == first


def test_other_tasks_join_the_plan(tmp_path):
    assert plan(tmp_path, NAMES[:3], size=2) == [NAMES[:2], NAMES[2:3]]
    assert plan(tmp_path, size=4) == [NAMES[:2], NAMES[2:3], NAMES[3:7]]


def test_a_group_is_left_aside_while_not_all_of_it_is_asked_for(tmp_path):
    plan(tmp_path)
    assert plan(tmp_path, NAMES[:2], size=3) == [NAMES[:2]]
    finish(tmp_path, *NAMES[:2])
    assert plan(tmp_path) == [NAMES[:3], NAMES[3:6], NAMES[6:], NAMES[:2]]


def test_policies_of_before_there_were_plans_count(tmp_path):
    finish(tmp_path, NAMES[1], NAMES[4])
    left = [name for name in NAMES if name not in (NAMES[1], NAMES[4])]
    assert plan(tmp_path) == [left[:3], left[3:]]


@pytest.mark.parametrize("content", [b"", b"{", b"5", b"[5]", b"[[5]]", b"\xff"])
def test_a_damaged_plan_is_refused(content, tmp_path):
    plan(tmp_path)
    (tmp_path / "groups" / "plan.json").write_bytes(content)
    with pytest.raises(PwmError, match=r"plan.json is damaged"):
        plan(tmp_path)
