"""Jobs in processes on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from quick_suite import QuickSuite, as_jobs, assert_same, read_records, run

pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra jobs")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def test_stores_policies_and_the_table_of_joblibs_jobs_are_those_of_one_process(tmp_path):
    suite = QuickSuite(tmp_path)
    one, many = tmp_path / "one", tmp_path / "many"
    for directory in (one, many):
        directory.mkdir()
    run(one, *suite.extract, "tasks=quick")
    run(one, *suite.evaluate, "tasks=quick")
    collect = ["collect", "-m", "suite=quick", "episodes=3", "out=data", "workers=1"]
    run(many, *collect, "launcher=joblib")
    run(many, "gather", "run=data")
    for path in suite.data.rglob("*.*"):
        if path.is_file() and path.name != ".lock":
            assert (many / "data" / path.relative_to(suite.data)).read_bytes() == path.read_bytes()
    for words, out in ((suite.extract, "policies"), (suite.evaluate, "scores")):
        run(many, *as_jobs(words, "launcher=joblib"))
        run(many, "gather", f"run={out}")
        processes = {record.pid for record in read_records(many / out).values()}
        assert len(processes) <= 2
    assert_same(one, many)
