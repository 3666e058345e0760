"""How far deployed policies and world models are from torch, as one Markdown table.

``python scripts/deploy_parity.py policy=checkpoints/quick/policies to=onnx,numpy`` deploys every
policy of a directory, ``checkpoint=`` a world model for each of its tasks; several of both make
several groups of rows. All is a share of an action's half-range, or of the largest output and at
least 1. The last column is how far an action moves, in float64, if each entry of the observation
moves by half a unit in the last place of float32.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pwm.deployment.deploy import DeployConfig, deploy
from pwm.deployment.sources import PolicySource
from pwm.models.policy import load_policy
from pwm.models.policy_directory import policy_path, policy_tasks
from pwm.models.world_model import load_world_model

MEASURED = ("difference_in_float64", "distance_from_float64", "rounding", "largest_difference")


def functions(kind: str, path: str, to: str) -> dict[str, list[list[float]]]:
    """Of every task, by function, what ``pwm deploy`` measured, in the order of ``MEASURED``."""
    is_policy = kind == "policy"
    names = [*policy_tasks(Path(path))] if is_policy else load_world_model(path).suite.names
    found = defaultdict(list)
    for name in names:
        with tempfile.TemporaryDirectory() as out:
            given = {kind: path, "task": name, "to": to, "out": out}
            facts = json.loads(deploy(DeployConfig(**given))[-1].read_text())
            moved = [sensitivity(policy_path(Path(path), name))] if is_policy else []
        for function, measured in facts["functions"].items():
            found[function].append([*(measured[key] for key in MEASURED), *moved])
    return found


def sensitivity(path: Path) -> float:
    """How far a policy's action moves with the rounding of its observation."""
    source = PolicySource(load_policy(path))
    (obs,) = source.samples("action", 256)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], obs.shape)
    actions = [
        source.outputs("action", [given], exact=True)
        for given in (obs.astype(np.float64), obs * (1 + signs * 2.0**-24))
    ]
    low, high = source.networks["action"].bounds or (-1.0, 1.0)
    return float(np.abs((actions[1] - actions[0]) / ((np.asarray(high) - low) / 2)).max())


def main(words: list[str]) -> None:
    """Measure what the words name."""
    torch.set_num_threads(1)
    settings = [tuple(word.split("=", 1)) for word in words]
    formats = dict(settings).get("to", "onnx").split(",")
    heads = [
        "of",
        "function",
        "files",
        "in float64",
        "file",
        "torch",
        "file and torch",
        "observation",
    ]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for kind, path in settings:
        for to in formats if kind != "to" else ():
            for function, rows in functions(kind, path, to).items():
                numbers = np.array(rows)
                shown = [
                    f"{middle:.1e}, {most:.1e}"
                    for middle, most in zip(np.median(numbers, 0), numbers.max(0), strict=True)
                ]
                shown += ["-"] * (len(MEASURED) + 1 - len(shown))
                cells = [path, f"{function}, {to}", str(len(rows)), *shown]
                lines.append(f"| {' | '.join(cells)} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
