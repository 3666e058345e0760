"""Training on data that are larger than memory may be."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from stores import sparse_store

from pwm.core.suites import Task

GIB = 2**30

PRETRAIN = """
import json, resource, sys

room = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (room, room))  # address space, of which memory is a part
from pwm.cli.main import main

code = main(sys.argv[2:])
print(json.dumps({"code": code, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


@pytest.mark.slow
def test_forty_gibibytes_train_in_eight(tmp_path):
    """A store of 40 GiB and a process that may not have more than 8, of which it takes 2."""
    task = Task("wide", "metaworld", 1000, 4, 500)
    data = sparse_store(tmp_path / "data", task, 21_500)
    assert (data / "wide" / "rows.bin").stat().st_size > 40 * GIB
    command = [
        "pretrain", f"data={data}", f"out={tmp_path / 'out'}", "device=cpu", "model=tiny",
        "batch_size=256", "horizon.lengths=[16]", "steps=40", "save_every=20", "data_memory=1",
    ]  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", PRETRAIN, str(8 * GIB), *command], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["code"] == 0
    assert result["peak"] < 2 * GIB
