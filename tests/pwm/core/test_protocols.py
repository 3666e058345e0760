"""Meta-World's episodes under other protocols than the benchmark's."""

from __future__ import annotations

import pytest

from pwm.core.errors import PwmError
from pwm.core.protocols import describe_protocols, other_protocols, protocol, with_metaworld
from pwm.core.suites import SUITES, get_suite, get_task
from pwm.simulation.collect_config import CollectConfig


def test_a_protocol_is_of_meta_worlds_tasks_alone() -> None:
    suite = with_metaworld(SUITES["mt80"], "500x1")
    assert suite.names == SUITES["mt80"].names
    assert {protocol(task) for task in suite if task.domain == "metaworld"} == {"500x1"}
    assert suite.tasks[:30] == SUITES["mt30"].tasks
    assert with_metaworld(suite, None) is suite
    assert (suite["mw-push"].episode_length, suite["mw-push"].action_repeat) == (500, 1)
    assert suite["mw-push"].discount == pytest.approx(0.99)


def test_other_protocols_are_named() -> None:
    assert other_protocols(SUITES["mt80"]) == {}
    found = other_protocols(with_metaworld(get_suite("walker-run,mw-push,mw-reach"), "250x2"))
    assert found == {"mw-push": "250x2", "mw-reach": "250x2"}
    assert "250x2 on 2 tasks (benchmark 100x2)" in describe_protocols(found)
    assert describe_protocols({}) == ""


@pytest.mark.parametrize("asked", ["500", "500x", "x1", "0x1", "5x-1", "501x1", "251x2", "1e2x1"])
def test_what_is_no_protocol_is_refused(asked: str) -> None:
    with pytest.raises(PwmError, match=f"metaworld={asked} is no protocol"):
        with_metaworld(SUITES["mt50"], asked)
    with pytest.raises(PwmError, match="such as 100x2 or 500x1"):
        CollectConfig("somewhere", suite="mw-push", metaworld=asked).validate()


def test_a_benchmark_task_keeps_its_protocol() -> None:
    assert protocol(get_task("mw-push")) == "100x2"
    assert protocol(get_task("walker-run")) == "500x2"
