"""Settings of collecting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from pwm.core.errors import PwmError
from pwm.core.layout import MANIFEST_NAME
from pwm.core.protocols import with_metaworld
from pwm.core.settings import Choices, setting
from pwm.core.suites import Suite, get_suite, task_names
from pwm.core.validation import (
    require_at_least,
    require_at_most,
    require_choice,
    require_positive,
    require_resume,
    require_seed,
    require_valid,
    require_writable,
)
from pwm.core.worker_pool import MOST_WORKERS
from pwm.data.manifest import Manifest
from pwm.simulation.agents_config import AGENTS, AgentsConfig
from pwm.simulation.behaviors import BEHAVIOURS, PolicyNoise, can_hold, has_controller
from pwm.simulation.sac_config import (
    LEARNERS,
    SacConfig,
    require_learner,
)
from pwm.simulation.simulator_mpc import SimulatorMPCConfig, can_plan


@dataclass
class CollectConfig:
    """Settings of ``pwm collect``.

    Attributes:
        out: the store's directory; made if it does not exist, appended to if it does.
        suite: a suite, a task, or several tasks, in a list or joined with commas.
        episodes: episodes per task, or a mapping from task name to episodes.
        seed: everything drawn follows from it; another seed adds other episodes.
        workers: processes, 0 for one per available core. Does not change the data.
        behaviour: ``mixed`` (each task's default mixture), ``random``, ``ou``, ``scripted``,
            ``held`` (Meta-World's scripts, which hold still while they succeed), ``mpc``
            (planning on dm_control's simulator), ``policy``, or an agent that learns from its
            episodes: ``sac`` or ``tqc``, one per worker, or ``agents``, of all tasks in one loop.
        policy: for ``policy``, the directory of the policy, or of many tasks' policies.
        policy_noise: standard deviation of the noise on the policy's actions; of a list each
            episode draws one.
        policy_noise_correlation: of the noise from one step to the next, at least 0 and below 1;
            likewise.
        worker_timeout: seconds that a simulator may take for one step before its worker counts
            as hung and is replaced; likewise one that dies or fails.
        max_faults: of one episode, which is run again after each; this many end the command.
        resume: ``auto`` goes on with what is in ``out`` or adds to it; ``never`` refuses it.
        mpc: of behaviour ``mpc``, how much it tries.
        sac: of behaviours ``sac`` and ``tqc``, how the agents learn.
        agents: of behaviour ``agents``, how they learn.
        metaworld: decision steps of Meta-World's episodes x control steps of each, such as
            ``500x1``; null for the benchmark's ``100x2``. What learns from the data keeps it.
    """

    presets: ClassVar[Choices] = {"launcher": "local", "collect": None}

    out: str
    suite: Any = setting("quick", may_change=True)
    episodes: Any = setting(100, may_change=True)
    seed: int = 0
    workers: int = setting(0, may_change=True)
    behaviour: str = "mixed"
    policy: str | None = setting(None, input_path=True)
    policy_noise: Any = 0.1
    policy_noise_correlation: Any = 0.0
    worker_timeout: float = setting(120.0, may_change=True)
    max_faults: int = setting(5, may_change=True)
    resume: str = "auto"
    mpc: SimulatorMPCConfig = field(default_factory=SimulatorMPCConfig)
    sac: SacConfig = field(default_factory=SacConfig)
    agents: AgentsConfig = field(default_factory=AgentsConfig)
    metaworld: str | None = None

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_seed(self, "seed")
        require_at_least(self, 0, "workers")
        require_at_most(self, MOST_WORKERS, "workers")
        require_positive(self, "worker_timeout")
        require_at_least(self, 1, "max_faults")
        known = ("mixed", *BEHAVIOURS, *LEARNERS, AGENTS)
        if self.behaviour not in known and Path(self.behaviour).is_dir():
            raise PwmError(
                f"behaviour={self.behaviour} is a directory; its policies act by "
                f"behaviour=policy policy={self.behaviour}."
            )
        require_choice(self, "behaviour", known)
        require_valid("mpc", self.mpc)
        require_valid("sac", self.sac)
        require_valid("agents", self.agents)
        if self.behaviour == AGENTS:
            from pwm.runtime.device import resolve_device  # it loads torch

            resolve_device(self.agents.device)
        if self.behaviour in LEARNERS:
            require_learner(self.behaviour, self.sac)
        if (self.behaviour == "policy") != (self.policy is not None):
            raise PwmError("behaviour=policy and policy=DIR go together; give both or neither.")
        suite = collected_suite(self)
        wanted = episodes_per_task(self.episodes, suite)
        for behaviour, possible, what in (
            ("scripted", has_controller, "no scripted controller"),
            ("held", can_hold, "no script that could hold still"),
            ("mpc", can_plan, "no planning on the simulator"),
        ):
            lacking = [name for name, n in wanted.items() if n and not possible(suite[name])]
            if self.behaviour == behaviour and lacking:
                raise PwmError(
                    f"there is {what} for {', '.join(lacking)}; use behaviour=mixed, or leave "
                    "these tasks out."
                )
        self.noise()
        require_writable(self.out)
        require_resume(self, Path(self.out) / MANIFEST_NAME)

    def as_job(self) -> CollectConfig:
        """These settings for one of several jobs, which has some of the tasks."""
        if not isinstance(self.episodes, Mapping):
            return self
        own = task_names(self.suite)
        return replace(self, episodes={t: n for t, n in self.episodes.items() if str(t) in own})

    def noise(self) -> PolicyNoise:
        """What is added to a policy's actions; raises PwmError for values that cannot work."""
        return PolicyNoise(
            _numbers("policy_noise", self.policy_noise, math.inf),
            _numbers("policy_noise_correlation", self.policy_noise_correlation, 1.0),
        )


def collected_suite(config: CollectConfig) -> Suite:
    """The tasks to collect, which the store may know already."""
    path = Path(config.out)
    known = Manifest.read(path).suite if (path / MANIFEST_NAME).exists() else ()
    return with_metaworld(get_suite(config.suite, known), config.metaworld)


def episodes_per_task(episodes: Any, suite: Suite) -> dict[str, int]:
    """How many episodes are asked for, by task; raises PwmError for what is no such number."""
    if isinstance(episodes, Mapping):
        wanted = {suite[str(name)].name: count for name, count in episodes.items()}
    else:
        wanted = dict.fromkeys(suite.names, episodes)
    for task, count in wanted.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise PwmError(
                f"episodes={count!r} for task '{task}' is not a number of episodes; give a whole "
                "number, or one for each task such as '{walker-run: 50}'."
            )
    if not any(wanted.values()):
        raise PwmError(f"episodes={episodes} asks for no episode; give a number of at least 1.")
    return wanted


def _numbers(name: str, given: Any, below: float) -> tuple[float, ...]:
    """A setting that is a number or a list of them, each at least 0 and below a bound."""
    values = given if isinstance(given, list | tuple) else [given]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not values or not numeric or not all(0 <= value < below for value in values):
        most = "" if below == math.inf else f" and below {below:g}"
        raise PwmError(
            f"{name}={given} must be a number of at least 0{most}, or a list of such numbers."
        )
    return tuple(float(value) for value in values)
