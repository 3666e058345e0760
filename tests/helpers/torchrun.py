"""Starting processes by torchrun, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pwm

ROOT = Path(pwm.__file__).parent.parent


def torchrun(words: list[str], ranks: int = 2, restarts: int = 0) -> subprocess.Popen[str]:
    """Start ``torchrun WORDS`` with ranks on this machine, at a port that is free."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    launch = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
        str(ranks), "--max-restarts", str(restarts),
    ]  # fmt: skip
    return subprocess.Popen(
        [*launch, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
