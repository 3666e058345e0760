"""Settings of the agents that learn while their episodes are recorded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.core.validation import require_at_least, require_choice, require_positive
from pwm.data.store import EpisodeStore
from pwm.simulation.learner_settings import require_networks_and_targets

LEARNERS = ("sac", "tqc")
"""Behaviours that are agents of Stable-Baselines3 and of its sb3-contrib, or of SBX."""

BACKENDS = ("torch", "jax")

AGENTS_DIRECTORY = ".agents"
"""In a store: ``<source>/<task>/`` has the agent's checkpoints, from which a collection goes on."""


@dataclass
class SacConfig:
    """Settings of agents that learn (SAC, Haarnoja et al. 2018; TQC, Kuznetsov et al. 2020).

    The defaults are those of Stable-Baselines3, but for the discount and the start, which follow
    TD-MPC2's. A step is a decision step.

    Attributes:
        backend: ``torch`` for Stable-Baselines3, or ``jax`` for SBX, the same agents in JAX.
        random_episodes: before the agent acts; their actions are uniform.
        learning_starts: steps in the replay before the first update.
        train_freq: steps between updates.
        gradient_steps: updates at a time.
        batch_size: transitions in an update.
        net_arch: widths of the hidden layers of the actor and of each critic.
        learning_rate: of all networks and the entropy coefficient.
        gamma: the discount; null for each task's own, TD-MPC2's heuristic of the episode's length.
        tau: how far the target critics go towards the critics at every update.
        ent_coef: the entropy's weight, a number, or ``auto`` to learn it.
        buffer_size: transitions that the replay holds; the oldest go first.
        prior: sources of the store, as ``pwm data info`` names them, whose episodes of the task the
            replay begins with, for tasks where chance finds no reward (as in RLPD, Ball et al.
            2023, but drawn no more often than others). They count among ``learning_starts``.
        learning_episodes: after so many episodes the agent acts on as before but learns no more,
            so that all further episodes come from one policy; null to learn always.
    """

    backend: str = "torch"
    random_episodes: int = 5
    learning_starts: int = 1000
    train_freq: int = 1
    gradient_steps: int = 1
    batch_size: int = 256
    net_arch: list[int] = field(default_factory=lambda: [256, 256])
    learning_rate: float = 3e-4
    gamma: float | None = None
    tau: float = 0.005
    ent_coef: Any = "auto"
    buffer_size: int = 1_000_000
    prior: list[str] = field(default_factory=list)
    learning_episodes: int | None = None

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_choice(self, "backend", BACKENDS)
        require_at_least(self, 0, "random_episodes")
        require_at_least(
            self, 1, "learning_starts", "train_freq", "gradient_steps", "batch_size", "buffer_size"
        )
        if self.learning_episodes is not None:
            require_at_least(self, 1, "learning_episodes")
        require_positive(self, "learning_rate", "tau")
        require_networks_and_targets(self)
        numeric = isinstance(self.ent_coef, int | float) and not isinstance(self.ent_coef, bool)
        if self.ent_coef != "auto" and not (numeric and 0 <= self.ent_coef < float("inf")):
            raise PwmError(f"ent_coef={self.ent_coef} must be auto or a number of at least 0.")


def require_learner(behaviour: str, config: SacConfig) -> None:
    """Raise PwmError if the library of a behaviour in `LEARNERS` is missing."""
    library, module, extra = _library(behaviour, config)
    if find_spec(module) is None:
        setting = f"behaviour={behaviour} with sac.backend={config.backend}"
        raise PwmError(f"{setting} needs {library}; pip install 'pwm-worldmodels[{extra}]'.")


def require_prior(store: EpisodeStore, config: SacConfig) -> None:
    """Raise PwmError if a store lacks a source that replays shall begin with."""
    if missing := [source for source in config.prior if source not in store.sources]:
        known = ", ".join(store.sources) or "none"
        raise PwmError(
            f"sac.prior names the source '{missing[0]}', which {store.path} does not have; its "
            f"sources: {known}."
        )


def describe_learner(behaviour: str, config: SacConfig) -> dict[str, Any]:
    """How a source describes the agents that made its episodes."""
    library, _, _ = _library(behaviour, config)
    settings = asdict(config)
    del settings["backend"]  # the library implies it
    for name in ("prior", "learning_episodes"):  # which collections of before they were there lack
        if not settings[name]:
            del settings[name]
    return {"library": f"{library} {version(library)}", "settings": settings}


def _library(behaviour: str, config: SacConfig) -> tuple[str, str, str]:
    """The distribution that has the agent, its module, and the extra that installs it."""
    if config.backend == "jax":
        return "sbx-rl", "sbx", "sbx"
    library = "stable-baselines3" if behaviour == "sac" else "sb3-contrib"
    return library, library.replace("-", "_"), "sac"


@dataclass(frozen=True)
class Training:
    """The training of agents, one per task.

    Attributes:
        behaviour: ``"sac"`` or ``"tqc"``.
        seed: the collection's.
        store: where the episodes are, of which an agent's replay is made again.
        source: the key of those episodes, which names all settings.
        config: those settings.
    """

    behaviour: str
    seed: int
    store: Path
    source: str
    config: SacConfig = field(compare=False)

    def learns_in(self, episode: int) -> bool:
        """Whether the agent still learns from the episode of this index."""
        limit = self.config.learning_episodes
        return limit is None or episode < limit

    def agents(self, task: Task) -> Path:
        """The directory of a task's checkpoints, each the agent after so many episodes."""
        return self.store / AGENTS_DIRECTORY / self.source / task.name
