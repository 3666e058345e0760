"""Settings of agents of many tasks that learn in one loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pwm.core.errors import PwmError
from pwm.core.settings import setting
from pwm.core.suites import Suite
from pwm.core.validation import require_at_least, require_choice, require_positive
from pwm.simulation.learner_settings import require_networks_and_targets

AGENTS = "agents"
"""The behaviour: agents of all tasks side by side, one batch of networks."""

_REVISION = 1  # of the algorithm; other agents make another source
_NOT_OF_THE_DATA = ("device", "compile", "precision")
_COMPILE, _PRECISION = ("auto", "always", "never"), ("auto", "float32", "tf32", "bfloat16")


@dataclass
class AgentsConfig:
    """Settings of soft actor-critics that learn side by side, with stacked networks.

    A step is a decision step of one task. Simulators of all tasks step together, and the agents
    learn meanwhile.

    Attributes:
        envs_per_task: simulators of a task, each with an episode of its own.
        random_episodes: of each task, whose actions are uniform.
        learning_starts: steps of a task before its first update.
        updates_per_step: updates of an agent for each step of its task; 0.25 is one for four steps.
        batch_size: transitions of each task in an update.
        net_arch: widths of the hidden layers, which have LayerNorm, of each actor and critic.
        learning_rate: of all networks and of the entropy's weight.
        gamma: the discount; null for each task's own, TD-MPC2's heuristic of the episode's length.
        tau: how far the target critics go towards the critics at every update.
        noise_color: of the noise that actions are sampled with: 0 is white, independent from step
            to step; 1 is pink, which explores in longer sweeps
            (:func:`pwm.simulation.colored_noise.colored_noise`).
        initial_entropy: the entropy's weight that learning it begins with.
        buffer_size: transitions of each task that its replay holds; the oldest go first.
        learning_episodes: an agent learns until its episode of this index begins, and acts on as it
            is from there, so that these episodes come from one policy; null to learn always.
        device: ``auto``, ``cpu`` or ``cuda``, where the agents and their replays are.
        compile: ``auto``, ``always`` or ``never``: fused layers, and on a GPU CUDA graphs.
        precision: ``auto``, ``float32``, ``tf32`` or ``bfloat16``, of matrix products.
    """

    envs_per_task: int = 8
    random_episodes: int = 8
    learning_starts: int = 2500
    updates_per_step: float = 0.25
    batch_size: int = 128
    net_arch: list[int] = field(default_factory=lambda: [128, 128])
    learning_rate: float = 1e-3
    gamma: float | None = None
    tau: float = 0.005
    noise_color: float = 0.0
    initial_entropy: float = 0.1
    buffer_size: int = 300_000
    learning_episodes: int | None = None
    device: str = setting("auto", may_change=True)
    compile: str = setting("auto", may_change=True)
    precision: str = setting("auto", may_change=True)

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 0, "random_episodes", "noise_color")
        require_at_least(self, 1, "envs_per_task", "learning_starts", "batch_size", "buffer_size")
        if self.learning_episodes is not None:
            require_at_least(self, 1, "learning_episodes")
        require_positive(self, "updates_per_step", "learning_rate", "tau", "initial_entropy")
        require_networks_and_targets(self)
        if self.buffer_size < self.envs_per_task:
            raise PwmError(
                f"buffer_size={self.buffer_size} must hold a step of each of the "
                f"envs_per_task={self.envs_per_task} simulators."
            )
        require_choice(self, "compile", _COMPILE)
        require_choice(self, "precision", _PRECISION)

    def updates_due(self, clock: int) -> int:
        """Updates while each of a task's simulators makes its step number ``clock``, from 0."""
        before, after = clock * self.envs_per_task, (clock + 1) * self.envs_per_task
        if before < self.learning_starts:
            return 0
        return math.floor(self.updates_per_step * after) - math.floor(
            self.updates_per_step * before
        )

    def learns(self, begun: int) -> bool:
        """Whether the agent of a task learns when so many of its episodes have begun."""
        return self.learning_episodes is None or begun <= self.learning_episodes

    def capacity(self, suite: Suite, wanted: Mapping[str, int]) -> int:
        """Transitions of a replay, in whole steps of its simulators; all that come, if fewer."""
        each = self.envs_per_task
        most = max((wanted[task] + each) * suite[task].episode_length for task in wanted)
        return min(self.buffer_size // each, -(-most // each)) * each


def row_width(obs_dim: int, action_dim: int) -> int:
    """Numbers of a transition: observations before and after, action, reward, termination."""
    return 2 * obs_dim + action_dim + 2


def describe_agents(config: AgentsConfig) -> dict[str, Any]:
    """How a source describes the agents that made its episodes."""
    settings = {k: v for k, v in asdict(config).items() if k not in _NOT_OF_THE_DATA}
    if settings["learning_episodes"] is None:
        del settings["learning_episodes"]
    if not settings["noise_color"]:
        del settings["noise_color"]
    return {"agents": _REVISION, "settings": settings}
