"""Expected scores of saved policies from recorded data, without a simulator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.progress import console
from pwm.core.settings import all_may_change, setting
from pwm.core.suites import Suite, task_names
from pwm.core.validation import require_choice, require_resume, require_seed, require_valid
from pwm.data.inspection import open_checked
from pwm.data.problems import ON_ERROR, BadData
from pwm.data.shared_tasks import shared_tasks
from pwm.extraction.estimate_settings import ScoreEstimateConfig
from pwm.extraction.expected_scores import ExpectedScore, estimator_of
from pwm.models.policy_directory import find_policies, policy_tasks
from pwm.models.world_models import load_world_models
from pwm.runtime.device import resolve_device, use_device
from pwm.runtime.run_dir import open_run, require_output

ESTIMATES = "estimates.json"


@all_may_change
@dataclass
class EstimateConfig:
    """Settings of ``pwm estimate``.

    Attributes:
        policies: what an extraction wrote, any directory with a policy per task, clones too, or
            one policy's directory.
        data: the episode store that tells what policies are worth; best the one that they were
            learned from.
        out: gets estimates.json.
        checkpoint: a world model whose latents are the states; null for the observations.
        tasks: a suite's name, tasks joined with commas or in a list, or null for every task that
            there is a policy for.
        estimate: how policies are valued.
        on_error: what to do with bad data: ``stop``, or ``skip`` to leave them out and count them.
    """

    policies: str = setting(MISSING, input_path=True)
    data: str = setting(MISSING, input_path=True)
    out: str = MISSING
    checkpoint: str | None = setting(None, input_path=True)
    tasks: Any = None
    estimate: ScoreEstimateConfig = field(default_factory=ScoreEstimateConfig)
    seed: int = 0
    device: str = "auto"
    on_error: str = "stop"
    resume: str = "auto"

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_seed(self, "seed")
        require_choice(self, "on_error", ON_ERROR)
        require_resume(self)
        resolve_device(self.device)
        if self.tasks is not None:
            task_names(self.tasks)
        require_valid("estimate", self.estimate)
        require_output(self)


def estimate(config: EstimateConfig) -> dict[str, ExpectedScore]:
    """Say what policies are expected to score, with intervals, from recorded data alone.

    Returns:
        By task name.

    Raises:
        PwmError: for settings, policies or data that do not fit.
    """
    config.validate()
    device = use_device(config.device)
    known = policy_tasks(Path(config.policies))
    bad = BadData(config.on_error)
    store = open_checked(config.data, bad)
    chosen = list(known) if config.tasks is None else task_names(config.tasks)
    policies = find_policies(Path(config.policies), chosen)
    suite = Suite("estimated", tuple(known[name] for name in policies))
    models = None if config.checkpoint is None else load_world_models(config.checkpoint, device)
    for name in policies:
        if name not in store.suite or not store.count(name):
            raise PwmError(
                f"{store.path} has no episodes of {name}; give the data that its policy was "
                "learned from, or leave the task out of tasks=."
            )
        if models is not None and name not in models.suite:
            raise PwmError(
                f"the world model {config.checkpoint} does not know {name}; give one that does, or "
                "none, for observations as states."
            )
    shared_tasks(store, suite, list(policies))  # raises where sizes differ
    found: dict[str, ExpectedScore] = {}
    with open_run(Path(config.out), "estimate", config):
        for name, policy in policies.items():
            model = None if models is None else models.of(name)
            estimator = estimator_of(
                known[name], store, model, config.estimate, config.seed, bad, device
            )
            found[name] = estimator(policy.to(device))
        write_estimates(Path(config.out) / ESTIMATES, config, found)
    Console().print(estimates_table(found))
    bad.report(console.print)
    return found


def write_estimates(path: Path, config: EstimateConfig, found: Mapping[str, ExpectedScore]) -> None:
    """Write expected scores by task name, and what they are of, as JSON."""
    content = {
        "policies": config.policies,
        "data": config.data,
        "checkpoint": config.checkpoint,
        "tasks": {name: asdict(score) for name, score in found.items()},
    }
    write_atomically(path, json.dumps(content, indent=1).encode())


def estimates_table(found: Mapping[str, ExpectedScore]) -> Table:
    """A terminal table: a row per task."""
    table = Table(
        title="Expected scores, from recorded data",
        caption="distance: mean squared, from the recorded actions.",
        box=SIMPLE_HEAD,
        caption_justify="left",
    )
    table.add_column("task")
    for head in ("expected", "interval", "distance"):
        table.add_column(head, justify="right")
    for name, score in found.items():
        interval = f"{score.low:z.1f} to {score.high:z.1f}"
        table.add_row(name, f"{score.score:z.1f}", interval, f"{score.distance:.3f}")
    return table
