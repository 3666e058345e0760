"""Planning on the simulator itself: data of high reward, without any learning.

Sampling-based predictive control in the manner of MPPI (Williams et al., ICRA 2017) and predictive
sampling (Howell et al., 2022): sequences of actions around a plan are tried in the simulator, the
plan moves to the best of them, and its first actions are taken. It sees the whole state and costs
seconds per episode, so it makes data, and is no policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.core.validation import require_at_least, require_at_most, require_positive


def can_plan(task: Task) -> bool:
    """Whether a task's simulator can evaluate plans."""
    return task.domain == "dmcontrol"


@dataclass
class SimulatorMPCConfig:
    """How much a planner tries.

    Attributes:
        samples: plans tried in a round, the present one among them.
        elites: of which the best are averaged.
        seconds: that a plan reaches ahead, within ``least`` and ``most`` decision steps.
        least: decision steps of a plan.
        most: likewise.
        every: decision steps from one round to the next.
        sigmas: magnitudes of the noise round the plan; each sample draws one.
        correlation: of that noise from one step to the next.
    """

    samples: int = 32
    elites: int = 4
    seconds: float = 1.0
    least: int = 16
    most: int = 40
    every: int = 2
    sigmas: list[float] = field(default_factory=lambda: [0.2, 0.6, 1.5])
    correlation: float = 0.8

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 2, "samples")
        require_at_least(self, 1, "elites", "least", "every")
        require_at_most(self, self.samples, "elites")
        require_at_least(self, self.least, "most")
        require_at_most(self, self.least, "every")
        require_positive(self, "seconds")
        if not self.sigmas or not all(0 < sigma < math.inf for sigma in self.sigmas):
            raise PwmError(f"sigmas={self.sigmas} must be numbers above 0, such as [0.2, 0.6].")
        require_at_least(self, 0, "correlation")
        require_at_most(self, 0.99, "correlation")


class SimulatorPlanner:
    """Plans for the environment in which the actions are taken; ``size`` is how much it tries.

    The environment has ``seconds_per_step``, simulated seconds of a decision step, and
    ``lookahead(plans)``: the sums of rewards, (N,), of plans, (N, H, action_dim), from its state.

    Raises PwmError if the task's simulator cannot evaluate plans.
    """

    def __init__(self, env: Any, task: Task, size: SimulatorMPCConfig | None = None) -> None:
        if not can_plan(task):
            raise PwmError(
                f"behaviour 'mpc' plans on dm_control's simulator, and task '{task.name}' is not "
                "of dm_control; use behaviour=scripted or sac there."
            )
        self._env, self._size = env, size or SimulatorMPCConfig()
        steps = round(self._size.seconds / env.seconds_per_step)
        self._shape = min(max(steps, self._size.least), self._size.most), task.action_dim

    def reset(self, rng: np.random.Generator) -> None:
        """Begins an episode; the generator is drawn from at every round."""
        self._rng = rng
        self._plan = np.zeros(self._shape)
        self._taken = 0

    def act(self, obs: np.ndarray | None = None) -> np.ndarray:
        """The next action, (action_dim,), in [-1, 1]; the simulator has the state."""
        if self._taken % self._size.every == 0:
            ahead = self._plan[self._taken :]
            self._plan = np.concatenate([ahead, np.zeros((self._taken, self._shape[1]))])
            self._improve()
            self._taken = 0
        action = self._plan[self._taken]
        self._taken += 1
        return action

    def _improve(self) -> None:
        plans = np.clip(self._plan + self._noise(), -1, 1)
        plans[0] = self._plan
        returns = self._env.lookahead(plans)
        best = np.argsort(-returns, kind="stable")[: self._size.elites]
        spread = returns[best[0]] - returns.mean()
        if spread <= 0:  # all bring the same, such as nothing
            return
        weights = np.exp((returns[best] - returns[best[0]]) / (0.1 * spread))
        self._plan = np.einsum("n,nha->ha", weights / weights.sum(), plans[best])

    def _noise(self) -> np.ndarray:
        size, (steps, action_dim) = self._size, self._shape
        fresh = self._rng.standard_normal((steps, size.samples, action_dim))
        noise = np.empty_like(fresh)
        noise[0] = fresh[0]
        for step in range(1, steps):
            kept = size.correlation * noise[step - 1]
            noise[step] = kept + math.sqrt(1 - size.correlation**2) * fresh[step]
        return self._rng.choice(size.sigmas, (size.samples, 1, 1)) * noise.swapaxes(0, 1)
