"""Clone one task's data: ``python clone_worker.py JOB.json``.

The job names a store as ``data``, ``task``, ``best``, ``seed``, the settings ``cloning``, and
``out``, which gets ``policy_<updates>`` for a quarter of the updates and for all, each with a
learning rate that ends at zero, and ``done.json``.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pwm.core.validation import from_plain
from pwm.data.store import EpisodeStore
from pwm.extraction.behavior_cloning import CloningConfig, clone


def main(job: dict[str, Any]) -> None:
    """Do a job."""
    torch.set_num_threads(1)
    config = from_plain(CloningConfig, job["cloning"])
    store, out = EpisodeStore.open(job["data"]), Path(job["out"])
    tasks, began = [store.suite[job["task"]]], 0.0
    counts = sorted({max(config.updates // 4, 1), config.updates})
    for updates in counts:
        began = time.perf_counter()
        some = replace(config, updates=updates)
        policies = clone(store, tasks, float(job["best"]), some, int(job["seed"]))
        policies[job["task"]].save(out / f"policy_{updates}", {**job, "updates": updates})
    seconds = time.perf_counter() - began
    (out / "done.json").write_text(json.dumps({"seconds": seconds, "updates": counts}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
