"""How long one decision takes in every form of a policy, as one Markdown table.

``python scripts/deploy_latency.py checkpoints/quick/policies/mw-reach`` measures on one thread, the
forms in turns, and of ``pwm serve`` a question and its answer between two processes. Several
policies make several groups of rows; ``executable=true`` compiles machine code too, which takes
minutes. Other settings: ``rounds=10``, ``calls=400`` per round.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pwm.deployment.comparison import durations
from pwm.deployment.deploy import FORMATS, DeployConfig, deploy
from pwm.deployment.numpy_file import open_numpy
from pwm.deployment.onnx_file import open_onnx
from pwm.deployment.sources import PolicySource
from pwm.deployment.torch_program import open_executable, open_program
from pwm.models.flat_policy import FlatPolicy
from pwm.models.policy import load_policy
from pwm.serving.client import PolicyClient

Run = Callable[[np.ndarray], np.ndarray]
_OPENED = {
    "onnx": ("onnxruntime", open_onnx),
    "numpy": ("NumPy", lambda file: open_numpy(file, "action")),
    "torch": ("torch.export program", open_program),
    "executable": ("AOTInductor package", open_executable),
}


def forms(path: Path, directory: Path, executable: bool) -> dict[str, tuple[Run, float]]:
    """What acts, by what the table calls it, and the size of its file in MB, or NaN."""
    policy = load_policy(path)
    found: dict[str, tuple[Run, float]] = {
        "torch, `policy.act`": (policy.act, np.nan),
        "`FlatPolicy`, as in evaluation": (FlatPolicy(policy), np.nan),
    }
    for to in FORMATS:
        if to != "executable" or executable:
            file, _ = deploy(DeployConfig(policy=str(path), to=to, out=str(directory)))
            name, opened = _OPENED[to]
            run = opened(file)
            assert run is not None
            found[name] = run, file.stat().st_size / 1e6
    return found


@contextmanager
def served(path: Path) -> Iterator[Run]:
    """A client's ``act``, with the server in a process of its own."""
    command = [sys.executable, "-m", "pwm.cli", "serve", f"policy={path}", "port=0"]
    environment = {**os.environ, "COLUMNS": "1000"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stderr is not None
            said = server.stderr.readline()
            found = re.search(r"tcp://\S+:\d+", said)
            if found is None:
                raise SystemExit(said + server.stderr.read())
            with PolicyClient(found[0], timeout=60) as client:
                yield client.act
        finally:
            server.terminate()


def rows(path: Path, executable: bool, rounds: int, calls: int) -> list[str]:
    """The table's rows for one policy."""
    policy = load_policy(path)
    with tempfile.TemporaryDirectory() as directory, served(path) as asked:
        found = forms(path, Path(directory), executable) | {"`pwm serve`": (asked, np.nan)}
        observations = PolicySource(policy).samples("action", 64)
        measured: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(rounds):
            for name, (run, _) in found.items():
                measured[name] += durations(run, observations, calls)
    parameters = sum(p.numel() for p in policy.parameters())
    lines = []
    for name, (_, size) in found.items():
        p50, p99 = np.percentile(measured[name], [50, 99]) * 1e6
        shown = "-" if np.isnan(size) else f"{size:.2f}"
        lines.append(
            f"| {policy.task.name}, {parameters / 1e6:.2f}M | {name} | {p50:.0f} | {p99:.0f} | "
            f"{shown} |"
        )
    return lines


def main(words: list[str]) -> None:
    """Measure the policies that the words name."""
    torch.set_num_threads(1)
    settings = {"rounds": "10", "calls": "400", "executable": "false"}
    settings |= dict(word.split("=", 1) for word in words if "=" in word)
    paths = [Path(word) for word in words if "=" not in word]
    lines = ["| policy, parameters | form | p50, us | p99, us | file, MB |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for path in paths:
        lines += rows(
            path,
            settings["executable"] == "true",
            int(settings["rounds"]),
            int(settings["calls"]),
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
