"""K tasks that are learned together: their learner and the pools of states it draws from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pwm.core.suites import Task
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import WindowSampler
from pwm.extraction.chosen_policies import ChosenPolicies, Judge
from pwm.extraction.config import ExtractConfig
from pwm.extraction.expected_scores import ExpectedScore, ScoreEstimator, estimator_of
from pwm.extraction.inputs import Demonstrations, Inputs, QInputs
from pwm.extraction.learner import ActorCriticLearner
from pwm.extraction.losses import distance_of_modes
from pwm.extraction.recorded_states import (
    RecordedTransitions,
    StartStates,
    draw_pools,
    take,
    weighted,
)
from pwm.extraction.warm_start import Networks
from pwm.models.actor_critic import Actors
from pwm.models.policy import Policy
from pwm.models.world_model import WorldModel
from pwm.pretraining.learner import WorldModelLearner
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.checkpoint import Checkpoint
from pwm.runtime.run_dir import resolved_config
from pwm.runtime.training_checkpoints import require_same_data

KIND = "extraction"
EXPECTED, PLAYED = "expected_score", "simulator_score"  # among the metrics
_ROWS_AT_ONCE = 2048


class Group:
    """Everything that the extraction of K tasks changes, and the data it draws from.

    Args:
        model: the world model.
        store: the data.
        tasks: the K tasks.
        config: see :class:`ExtractConfig`.
        bad: told of bad data.
        init_networks: networks to begin with by task name; the other tasks get random ones.
        ensemble: further world models, which predict the rewards too.
        alone: gives the plain world model of a task, if ``model`` is those of all of them as one
            (:meth:`pwm.models.stacked_world_model.StackedWorldModel.together`).
        judge: scores policies for ``select=simulator``.
    """

    def __init__(
        self,
        model: WorldModel,
        store: EpisodeStore,
        tasks: Sequence[Task],
        config: ExtractConfig,
        bad: BadData,
        init_networks: Mapping[str, Networks],
        ensemble: Sequence[WorldModel],
        alone: Callable[[str], WorldModel] | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.tasks, self.config, self.store = list(tasks), config, store
        self._resolved = resolved_config(config)
        self._alone = alone if alone is None or not config.judges else cache(alone)
        self.tuner: WorldModelLearner | None = None
        if config.finetune.enabled:
            torch.manual_seed(config.seed)  # of the value losses' noise and dropout
            model = copy.deepcopy(model).unfreeze()
            self.tuner, self.windows = _tuner(model, store, tasks, config, bad)
        accelerator = Acceleration(config.compile, config.precision).prepare(model.bins.device)
        self.learner = ActorCriticLearner(
            model, tasks, config.learner, config.seed, accelerator, ensemble
        )
        for index, task in enumerate(tasks):
            if task.name in init_networks:
                self.learner.init_weights_from(index, *init_networks[task.name])
        frozen, ids = self.tuner is None, self.learner.task_ids
        pool = partial(draw_pools, store, tasks, model, config, bad)
        start_rows = pool()
        self.starts = StartStates(model, start_rows.obs, ids, frozen)
        self.ensemble_starts = [
            self.starts
            if other.encoder is model.encoder
            else StartStates(other, start_rows.obs, ids, True)
            for other in ensemble
        ]
        if config.learner.ensemble.truncate_above is not None:
            self._set_limit(start_rows.action)
        self.demonstrations: tuple[StartStates, Tensor] | None = None
        bc, critic = config.learner.bc, config.learner.critic
        self._measures_spread = config.learner.prior.relative_target is not None
        if bc.needs_demonstrations or self._measures_spread:
            demonstrated = pool(best=bc.top_fraction, newest=bc.newest_fraction)
            if bc.awr_temperature is not None:
                demonstrated = weighted(demonstrated, model, ids, bc.awr_temperature, config.seed)
            states = StartStates(model, demonstrated.obs, ids, frozen)
            self.demonstrations = states, demonstrated.action
        self.recorded: RecordedTransitions | None = None
        if critic.real_ratio:
            self.recorded = RecordedTransitions(model, pool(ahead=critic.real_steps), ids, frozen)
        self.of_q: RecordedTransitions | None = None
        if config.learner.q.members:
            rows = pool(ahead=critic.real_steps, most=config.learner.q.pool)
            self.of_q = RecordedTransitions(model, rows, ids, frozen=False)
            assert self.learner.q is not None
            self.learner.q.begin(self.of_q.mean_value())
        self._estimators: list[ScoreEstimator] = []
        if config.estimates:
            device = model.bins.device
            self._estimators = [
                estimator_of(
                    task, store, self._model_of(task), config.estimate, config.seed, bad, device
                )
                for task in tasks
            ]
        self.chosen: ChosenPolicies | None = None
        if config.select != "last":
            judged, name = (self._estimated, EXPECTED) if judge is None else (judge, PLAYED)
            self.chosen = ChosenPolicies(judged, name, self._policies, self.learner.actors)

    def step(self, number: int) -> dict[str, Tensor]:
        """An update that only clones, one of Q, or an iteration, for all tasks; (K,) metrics."""
        learner, config = self.learner, self.config.learner
        learner.set_progress(number)
        if number < config.bc.warmup_steps:
            return learner.bc_update(self._demonstrations())
        if number < config.warmup_steps:
            return learner.q_update(self._q_inputs(steps=1))
        if number == config.warmup_steps:
            learner.begin_iterations(self._spread() if self._measures_spread else None)
        return self._iteration(number - config.warmup_steps)

    def _set_limit(self, action: Tensor) -> None:
        """Measure what the models disagree on the start states' recorded actions (K, n, action)."""
        found = [
            self.learner.imagination.disagreement(
                [states[rows] for states in (self.starts, *self.ensemble_starts)],
                take(action, rows),
            )
            for rows in _all_rows(action)
        ]
        self.learner.ends.set_limit(torch.cat(found, 1))

    @torch.no_grad()
    def _spread(self) -> Tensor:
        """(K,) mean squared distance of demonstrated actions from the actors', per entry."""
        assert self.demonstrations is not None
        states, action = self.demonstrations
        actors = self.learner.actors
        total = sum(
            distance_of_modes(actors(states[rows]), take(action, rows), actors.action_mask)
            * rows.shape[1]
            for rows in _all_rows(action)
        )
        assert isinstance(total, Tensor)
        return total / len(states)

    def _demonstrations(self) -> Demonstrations:
        assert self.demonstrations is not None
        states, action = self.demonstrations
        rows = self.learner.sample(len(states))
        return Demonstrations(states[rows], take(action, rows))

    def _iteration(self, step: int) -> dict[str, Tensor]:
        if self.tuner is not None:
            self.tuner.set_learning_rate(step)
            self.tuner.update(self.windows.batch(step))
        learner = self.learner
        rows = learner.sample(len(self.starts))
        start = self.starts[rows]
        ensemble_start_latents = tuple(states[rows] for states in self.ensemble_starts)
        demonstrations = self._demonstrations() if self.config.learner.bc.in_iterations else None
        transitions = None
        if self.recorded is not None:
            transitions = self.recorded[learner.sample(len(self.recorded))]
        noise = learner.noise()
        q = None if self.of_q is None else self._q_inputs(self.config.learner.q.updates)
        return learner.iteration(
            Inputs(start, noise, demonstrations, transitions, ensemble_start_latents, q)
        )

    def _q_inputs(self, steps: int) -> QInputs:
        assert self.of_q is not None
        rows = self.learner.sample(len(self.of_q), steps * self.config.learner.q.batch_size)
        return QInputs(self.of_q[rows], self.learner.q_noise(steps))

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All state as named tensors, for a checkpoint."""
        groups = self.learner.tensors()
        if self.chosen is not None:
            groups["best"] = self.chosen.tensors()
        if self.tuner is not None:
            groups |= {f"tuner_{name}": items for name, items in self.tuner.tensors().items()}
        return groups

    def meta(self) -> dict[str, Any]:
        """What else a checkpoint says."""
        return {
            "tasks": [task.table() for task in self.tasks],
            "config": self._resolved,
            "data": self.store.digest,
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Restore what :meth:`tensors` gave."""
        require_same_data(checkpoint, self.store.digest, str(self.store.path))
        self.learner.load(checkpoint)
        if self.chosen is not None:
            self.chosen.load(checkpoint.tensors["best"])
        if self.tuner is not None:
            tuned = {
                name.removeprefix("tuner_"): items
                for name, items in checkpoint.tensors.items()
                if name.startswith("tuner_")
            }
            self.tuner.load(replace(checkpoint, tensors=tuned))

    def consider(self, step: int) -> dict[str, Tensor]:
        """Scores, (K,), at the steps where policies are chosen by them; else nothing.

        Args:
            step: how many have been made.
        """
        config = self.config
        made, every = step - config.learner.warmup_steps, config.estimate_every
        due = made >= 0 and (made % every == 0 or step == config.learner.steps)
        if self.chosen is None or not due:
            return {}
        return self.chosen.consider(self.learner.actors, made)

    def expected_scores(self) -> list[ExpectedScore]:
        """Of the policies that are to be saved; none where they are not asked for."""
        return self._estimated(self._policies(self._kept)) if self._estimators else []

    def _estimated(self, policies: Sequence[Policy]) -> list[ExpectedScore]:
        return [judge(policy) for judge, policy in zip(self._estimators, policies, strict=True)]

    @property
    def _kept(self) -> Actors:
        return self.learner.actors if self.chosen is None else self.chosen.actors

    def _policies(self, actors: Actors) -> list[Policy]:
        size = self.config.learner.networks
        return [
            Policy.from_latent_actor(self._model_of(task), task, actors, index, size)
            for index, task in enumerate(self.tasks)
        ]

    def _model_of(self, task: Task) -> WorldModel:
        """The plain world model of a task."""
        return self.learner.model if self._alone is None else self._alone(task.name)

    def save_policies(self, out: Path) -> None:
        """Write one policy directory per task."""
        made_by = {"command": "extract", "config": asdict(self.config)}
        for index, policy in enumerate(self._policies(self._kept)):
            policy.save(out / policy.task.name, made_by, self.learner.critic(index))


def _all_rows(pool: Tensor) -> tuple[Tensor, ...]:
    """The numbers (K, n) of all rows of a pool (K, N, ...), some at once."""
    numbers = torch.arange(pool.shape[1], device=pool.device).expand(pool.shape[:2])
    return numbers.split(_ROWS_AT_ONCE, 1)


def _tuner(
    model: WorldModel,
    store: EpisodeStore,
    tasks: Sequence[Task],
    config: ExtractConfig,
    bad: BadData,
) -> tuple[WorldModelLearner, WindowSampler]:
    device, settings = model.bins.device, config.finetune
    windows = WindowSampler(
        store,
        config.learner.horizon,
        settings.batch_size,
        config.seed,
        suite=model.suite,
        tasks=[task.name for task in tasks],
        device=device,
        bad=bad,
        terminations=model.episodic,
    )
    discount = torch.tensor([task.discount for task in model.suite], device=device)
    learner = copy.copy(settings.learner)
    learner.steps = config.learner.iterations
    return WorldModelLearner(model, learner, discount), windows
