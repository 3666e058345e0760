"""Groups of tasks by file and by embodiment."""

from __future__ import annotations

import json

import pytest

from pwm.core.errors import PwmError
from pwm.core.suites import get_suite
from pwm.multitask.groups import by_embodiment, chosen_groups, read_groups, write_groups

TASKS = list(get_suite("walker-run,mw-push,reacher-easy,walker-walk,mw-reach,reacher-three-easy"))
NAMES = [task.name for task in TASKS]


def test_tasks_of_one_body_are_together_and_the_most_similar_bodies_are_merged_first():
    bodies = [["walker-run", "walker-walk"], ["mw-push", "mw-reach"], ["reacher-easy"]]
    assert by_embodiment(TASKS) == [*bodies, ["reacher-three-easy"]]
    assert by_embodiment(TASKS, 3) == [*bodies[:2], ["reacher-easy", "reacher-three-easy"]]
    two = [["walker-run", "reacher-easy", "walker-walk", "reacher-three-easy"], bodies[1]]
    assert by_embodiment(TASKS, 2) == two
    assert by_embodiment(TASKS, 1) == [NAMES]
    with pytest.raises(PwmError, match="groups=5 must be 1 to 4, the number of embodiments"):
        by_embodiment(TASKS, 5)


def test_a_file_of_groups_is_read_as_it_was_written(tmp_path):
    groups = [NAMES[:2], NAMES[2:]]
    write_groups(tmp_path / "groups.json", "gradient", groups)
    assert read_groups(tmp_path / "groups.json") == groups
    assert chosen_groups(str(tmp_path / "groups.json"), TASKS, False) == groups


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"groups": []}', '{"groups": [[], ["a"]]}', '{"groups": [["a"], ["a"]]}',
     '{"groups": [[3]]}', '{"groups": 3}', '{"groups": ["a", "b"]}', '{"groups": [["a"]'],
)  # fmt: skip
def test_a_file_without_groups_is_refused(tmp_path, content):
    (tmp_path / "groups.json").write_text(content)
    with pytest.raises(PwmError, match=r"groups.json cannot be read as groups of tasks"):
        read_groups(tmp_path / "groups.json")


def test_a_file_and_the_tasks_must_fit(tmp_path):
    file = tmp_path / "groups.json"
    file.write_text(json.dumps({"groups": [["walker-run"], ["mw-push", "cup-catch"]]}))
    with pytest.raises(PwmError, match="has no group for reacher-easy, walker-walk"):
        chosen_groups(str(file), TASKS[:4], True)
    with pytest.raises(PwmError, match="walker-walk, and names cup-catch, which the data"):
        chosen_groups(str(file), TASKS[:4], False)
    with pytest.raises(PwmError, match="names cup-catch, which the data lack"):
        chosen_groups(str(file), TASKS[:2], False)
    assert chosen_groups(str(file), TASKS[:1], True) == [["walker-run"]]


def test_embodiments_of_the_benchmark():
    groups = by_embodiment(list(get_suite("mt80")))
    assert max(map(len, groups)) == 50
    assert {"walker-stand", "walker-run-backwards"} < set(groups[0])
    assert len(groups[0]) == 5
