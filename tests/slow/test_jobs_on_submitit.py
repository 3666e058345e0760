"""Jobs by submitit's local executor, one of which is killed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from quick_suite import (
    QuickSuite,
    as_jobs,
    assert_done_by_another,
    assert_same,
    kill_a_job,
    run,
    start,
)

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra slurm")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def test_a_job_is_killed_and_the_same_command_ends_with_the_table_of_one_process(tmp_path):
    suite = QuickSuite(tmp_path)
    one, many = tmp_path / "one", tmp_path / "many"
    for directory in (one, many):
        directory.mkdir()
    run(one, *suite.extract, "tasks=quick")
    run(one, *suite.evaluate, "tasks=quick")

    for words, out in ((suite.extract, "policies"), (suite.evaluate, "scores")):
        command = as_jobs(words, "launcher=submitit_local")
        first = start(many, *command)
        job, pid = kill_a_job(many / out)
        shown = first.communicate()[0]
        assert first.returncode == 1
        assert "The launcher submitit_local stopped" in shown
        assert "the same command goes on with them" in shown
        run(many, *command)
        assert_done_by_another(job, pid)
        run(many, "gather", f"run={out}")
    assert_same(one, many)
