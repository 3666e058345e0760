"""What a policy is expected to score, with an interval, from recorded episodes alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor

from pwm.core.suites import Task
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore
from pwm.extraction.estimate_settings import ScoreEstimateConfig
from pwm.extraction.fitted_evaluation import FittedEvaluation, Gain, RandomFeatures
from pwm.extraction.recorded_states import StartStates
from pwm.extraction.recorded_steps import RecordedSteps
from pwm.models.world_model import WorldModel
from pwm.runtime.seeding import stream

Act = Callable[[Tensor], Tensor]
"""A policy's actions (n, action_dim) for observations (n, obs_dim), sizes of the task."""

_GROUPS, _LEAST_IN_GROUP = 4, 5  # of episodes, whose known outcomes calibrate
_QUANTILE = 0.975


@dataclass(frozen=True)
class ExpectedScore:
    """What the data say of a policy.

    Attributes:
        score: expected, in 0..100 as the simulator's.
        low, high: its interval.
        distance: mean squared distance from the recorded actions, per entry, at recorded states.
        spread: standard deviation of the evaluations' scores.
    """

    score: float
    low: float
    high: float
    distance: float
    spread: float


@dataclass(frozen=True)
class Calibration:
    """From an evaluation's score to the simulator's: score = mean + slope (value - center).

    Attributes:
        center, mean, slope: the line.
        error: standard deviation of known scores around it.
    """

    center: float = 0.0
    mean: float = 0.0
    slope: float = 1.0
    error: float = 0.0

    @classmethod
    def fit(cls, value: Tensor, known: Tensor) -> Calibration:
        """The line of groups whose scores are known: (groups,) of both.

        The larger their errors are beside how far the groups lie apart, the nearer the slope is
        to one. With fewer than three groups nothing is changed.
        """
        if len(value) < 3:
            return cls()
        center, mean = value.mean(), known.mean()
        apart, excess = value - center, (known - mean) - (value - center)
        slope = 1 + (apart @ excess) / (apart @ apart + excess @ excess).clamp(min=1e-12)
        left = known - mean - slope * apart
        error = math.sqrt(float(left @ left) / (len(value) - 2))
        return cls(float(center), float(mean), max(float(slope), 0.1), error)

    def __call__(self, value: Tensor) -> Tensor:
        """Calibrated scores of any shape."""
        return self.mean + self.slope * (value - self.center)


class ScoreEstimator:
    """Values policies of one task, all on the same recorded steps.

    Args:
        task: the task; how it is scored decides what is valued, return or success.
        steps: of its data.
        encode: states (n, size) of observations (n, obs_dim); the world model's latents, say.
        config: see :class:`ScoreEstimateConfig`.
        seed: together with the task's name it fixes all that is random.
    """

    def __init__(
        self,
        task: Task,
        steps: RecordedSteps,
        encode: Callable[[Tensor], Tensor],
        config: ScoreEstimateConfig,
        seed: int,
    ) -> None:
        self._task, self._steps, self._config = task, steps, config
        state = encode(steps.obs)
        mean, scale = state.mean(0), state.std(0).clamp(min=1e-3)
        self._next_state = (encode(steps.next_obs) - mean) / scale
        self._start = (encode(steps.start_obs) - mean) / scale
        generator = stream(seed, task.name + "/estimate", steps.obs.device)
        self._features = RandomFeatures(
            config.members, state.shape[1], task.action_dim, config.features, generator
        )
        episodes = len(steps.start_obs)
        drawn = torch.randint(
            episodes, (config.members, episodes), generator=generator, device=steps.obs.device
        )
        self._counts = torch.zeros(drawn.shape, device=drawn.device).scatter_add_(
            1, drawn, torch.ones_like(drawn, dtype=torch.float32)
        )
        self._now = self._features((state - mean) / scale, steps.action)
        self._gain = Gain(
            task.episode_length,
            float(steps.reward.min()),
            float(steps.reward.max()),
            at_the_end=task.scored_by_success,
        )
        weight, ridge = self._counts[:, steps.episode], config.ridge
        self._evaluation = FittedEvaluation(self._now, weight, steps.reward, self._gain, ridge)
        self.calibration = self._calibrated()

    @torch.no_grad()
    def __call__(self, act: Act) -> ExpectedScore:
        """The expected score of a policy."""
        steps = self._steps
        coefficients = self._evaluation.coefficients(self._next_features(act(steps.next_obs)))
        at_start = self._features(self._start, act(steps.start_obs))
        value = self._evaluation.value(coefficients, at_start)
        by_member = self._score((value * self._counts).sum(1) / self._counts.sum(1))
        scores = self.calibration(by_member)
        score, spread = float(scores.mean()), float(scores.std())
        wide = float(scipy.stats.t.ppf(_QUANTILE, len(scores) - 1))  # so few know little of spread
        reach = wide * math.hypot(spread, self.calibration.error)
        distance = float((act(steps.obs) - steps.action).square().mean())
        return ExpectedScore(score, score - reach, score + reach, distance, spread)

    def _next_features(self, action: Tensor) -> Tensor:
        return self._features(self._next_state, action) * self._steps.goes_on.unsqueeze(-1)

    def _score(self, value: Tensor) -> Tensor:
        least, most = self._task.normalized_score(0.0, 0.0), self._task.normalized_score(1.0, 1.0)
        return least + (most - least) * value

    @torch.no_grad()
    def _calibrated(self) -> Calibration:
        """Compare what is known of episodes, best to worst in groups, with their evaluations.

        An evaluation of what was done in a group sees the steps of that group alone, so that its
        errors are those of the fit, and not those of actions that nobody took.
        """
        steps = self._steps
        whole = steps.is_whole.nonzero().flatten()
        ranked = whole[steps.outcome[whole].argsort()]
        groups = ranked.tensor_split(min(_GROUPS, len(ranked) // _LEAST_IN_GROUP) or 1)
        following = self._next_features(steps.following)
        at_start = self._features(self._start, steps.start_action)
        usable = ~steps.is_last | (steps.goes_on == 0)  # of the others nothing follows
        values, known = [], []
        for group in groups if len(groups) > 2 else ():
            rows = (torch.isin(steps.episode, group) & usable).nonzero().flatten()
            now, ones = self._now[:, rows], torch.ones_like(self._now[:, rows, 0])
            reward, ridge = steps.reward[rows], self._config.ridge
            evaluation = FittedEvaluation(now, ones, reward, self._gain, ridge)
            coefficients = evaluation.coefficients(following[:, rows])
            value = evaluation.value(coefficients, at_start[:, group])
            values.append(float(self._score(value.mean())))
            known.append(float(self._score(steps.outcome[group].mean())))
        return Calibration.fit(torch.tensor(values), torch.tensor(known))


def estimator_of(
    task: Task,
    store: EpisodeStore,
    model: WorldModel | None,
    config: ScoreEstimateConfig,
    seed: int,
    bad: BadData,
    device: torch.device,
) -> ScoreEstimator:
    """The estimator of a task's policies from a store.

    Args:
        task: the task.
        store: the data.
        model: gives the states, as latents; without one they are the observations.
        config: see :class:`ScoreEstimateConfig`.
        seed: of all that is drawn.
        bad: told of bad data.
        device: where it computes.

    Raises:
        PwmError: for data that are too few or cut into pieces.
    """
    steps = RecordedSteps.draw(store, task.name, config.rows, seed, bad).to(device)

    def state(obs: Tensor) -> Tensor:
        if model is None:
            return obs
        padded = F.pad(obs, (0, model.suite.obs_dim - obs.shape[1])).unsqueeze(0)
        task_id = torch.tensor([model.suite.id(task.name)], device=device)
        return StartStates(model, padded, task_id, frozen=True).content[0]

    return ScoreEstimator(task, steps, state, config, seed)
