"""PWM online: a world model and a policy from one simulation (PWM, ICLR 2025, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.core.suites import Suite
from pwm.core.validation import require_at_least, require_share, require_valid
from pwm.extraction.config import ActorCriticConfig, CriticConfig
from pwm.extraction.inputs import Inputs, QInputs, Transitions
from pwm.extraction.learner import ActorCriticLearner
from pwm.locomotion.batched_simulation import BatchedSimulation
from pwm.locomotion.learner import task_of
from pwm.locomotion.observation_moments import ObservationMoments
from pwm.locomotion.replay import Replay
from pwm.models.math import symlog
from pwm.models.policy import Policy
from pwm.models.world_model import KIND, ModelSize, WorldModel, model_meta
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.checkpoint import Checkpoint, Groups, save_checkpoint
from pwm.runtime.seeding import restore, stream, stream_seed

_MODEL, _POLICY = "model_", "policy_"


@dataclass
class OnlineConfig:
    """Settings of PWM online; networks and losses are those of pretraining and extraction.

    Attributes:
        num_envs: environments side by side.
        horizon: steps that they make in an iteration, and of windows and imagined rollouts, which
            are no longer than episodes.
        first_steps: steps with random actions before the first iteration, all environments
            together.
        replay: transitions that are kept.
        recent: the share, 0..1, of the states that imagination begins in, and of the transitions
            for the critics, that are of the newest ``recent_steps``: older ones say how an earlier
            policy went on from there. The world model learns from all.
        recent_steps: all environments together.
        model_updates: of the world model in an iteration.
        model_batch: windows of such an update.
        policy_updates: of actor and critics in an iteration, each from new states of the replay;
            1 in the paper, whose iterations have 1,024 steps.
        imagined_steps: of rollouts, where they are not to be ``horizon``.
        model: the world model's architecture.
        model_learner: how it is updated; ``steps`` follows from those of the run.
        policy: how actor and critics learn; ``iterations`` and ``horizon`` likewise. The Q
            functions of ``q``, if it has ``members``, and a ``critic.real_ratio`` learn from the
            replay; there is nothing to clone.
    """

    num_envs: int = 64
    horizon: int = 16
    first_steps: int = 2048
    replay: int = 1_000_000
    recent: float = 0.0
    recent_steps: int = 2048
    model_updates: int = 8
    model_batch: int = 256
    policy_updates: int = 1
    imagined_steps: int | None = None
    model: ModelSize = field(default_factory=lambda: ModelSize(task_dim=0))
    model_learner: LearnerConfig = field(
        default_factory=lambda: LearnerConfig(warmup=100, encoder_lr_scale=1.0)
    )
    policy: ActorCriticConfig = field(
        default_factory=lambda: ActorCriticConfig(
            batch_size=256, critic=CriticConfig(iterations=8), reward_units="real"
        )
    )

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 1, "num_envs", "horizon", "first_steps", "replay", "recent_steps")
        require_share(self, "recent")
        require_at_least(self, 1, "model_updates", "model_batch", "policy_updates")
        require_valid("model", self.model)
        require_valid("model_learner", self.model_learner)
        if self.imagined_steps is not None:
            require_at_least(self, 1, "imagined_steps")
        require_valid("policy", self.policy)
        if self.policy.bc.needs_demonstrations or self.policy.prior.weight:
            raise PwmError(
                "policy.bc and policy.prior need recorded data, of which pwm has none here; leave "
                "their weights and warmup_steps at 0."
            )


class OnlinePwm:
    """World model, actor and critics of one simulation.

    Args:
        simulation: stepped by :meth:`iteration`.
        config: see :class:`OnlineConfig`.
        total_steps: after which the learning rates have fallen.
        seed: of networks, noise, batches and episodes.
    """

    resumes = True

    def __init__(
        self, simulation: BatchedSimulation, config: OnlineConfig, total_steps: int, seed: int
    ) -> None:
        self.simulation, self._seed = simulation, seed
        self._observation = simulation.reset(stream_seed(seed, "episodes"))
        device = self._observation.device
        self.task = task_of(simulation)
        played = config.horizon * simulation.num_envs
        iterations = max(1, -(-(total_steps - config.first_steps) // played))
        self._horizon = horizon = min(config.horizon, simulation.episode_length)
        self.config = config = replace(
            config,
            model_learner=replace(config.model_learner, steps=iterations * config.model_updates),
            policy=replace(
                config.policy,
                iterations=iterations * config.policy_updates,
                horizon=config.imagined_steps or horizon,
                q=replace(config.policy.q, warmup_steps=0),
            ),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "world model"))
            model = WorldModel(
                config.model,
                Suite(self.task.name, (self.task,)),
                normalize_obs=True,
                episodic=True,
            )
        self.model = model.to(device)
        accelerator = Acceleration(precision="float32").prepare(device)
        discount = torch.tensor([config.policy.discount], device=device)
        self.of_model = WorldModelLearner(self.model, config.model_learner, discount, accelerator)
        self.of_policy = ActorCriticLearner(
            self.model, [self.task], config.policy, seed, accelerator
        )
        self.accelerator = accelerator
        sizes = simulation.observation_size, simulation.action_size
        kept = min(config.replay, total_steps + played + config.first_steps)
        self.replay = Replay(kept, simulation.num_envs, *sizes, device, config.recent_steps)
        self.moments = ObservationMoments(simulation.observation_size, device)
        self._generator = stream(seed, "replay", device)
        self.steps = self._iterations = 0

    def iteration(self) -> dict[str, float]:
        """Act, remember, update the world model, then the actor and the critics."""
        config = self.config
        if self._iterations == 0:
            self._play(-(-config.first_steps // self.simulation.num_envs), at_random=True)
        reward = self._play(config.horizon, at_random=False)
        of_model: dict[str, Tensor] = {}
        for update in range(config.model_updates):
            self.of_model.set_learning_rate(self._iterations * config.model_updates + update)
            batch = self.replay.windows(self._horizon, config.model_batch, self._generator)
            of_model = self.of_model.update(batch)
        of_policy = self._improve()
        self._iterations += 1
        found = {f"model_{name}": float(value) for name, value in of_model.items()}
        return (
            found | {name: float(value) for name, value in of_policy.items()} | {"reward": reward}
        )

    def _improve(self) -> Mapping[str, Tensor]:
        """Update the actor and the critics in imagination; the figures of the last update."""
        config, found = self.config, {}
        real = bool(config.policy.critic.real_ratio)
        for update in range(config.policy_updates):
            self.of_policy.set_progress(self._iterations * config.policy_updates + update)
            observations = self.replay.observations(
                config.policy.batch_size, self._generator, config.recent
            )
            start = self.encoded(observations).unsqueeze(0)
            transitions = self._transitions(config.policy.batch_size) if real else None
            inputs = Inputs(
                start, self.of_policy.noise(), transitions=transitions, q=self._q_inputs()
            )
            found = self.of_policy.iteration(inputs)
        return found

    def _q_inputs(self) -> QInputs | None:
        """What the Q functions learn from in an update of the policy, if there are any."""
        config = self.config.policy.q
        if not config.members:
            return None
        transitions = self._transitions(config.updates * config.batch_size)
        return QInputs(transitions, self.of_policy.q_noise(config.updates))

    def _transitions(self, count: int) -> Transitions:
        """Some of the replay's, (1, count), each over ``critic.real_steps``."""
        policy = self.config.policy
        batch = self.replay.windows(
            policy.critic.real_steps, count, self._generator, self.config.recent
        )
        reward = batch.reward if policy.reward_units == "real" else symlog(batch.reward)
        assert batch.terminated is not None
        summed, counts = n_step(reward, batch.terminated, policy.discount)
        states = self.encoded(batch.obs[0]), batch.action[0]
        outcome = summed, counts, self.encoded(batch.obs[-1])
        return Transitions(*(x.unsqueeze(0) for x in (*states, *outcome)))

    @torch.no_grad()
    def _play(self, count: int, at_random: bool) -> float:
        """The mean reward of some steps in all environments, which are remembered."""
        simulation, total, seen = self.simulation, 0.0, []
        shape = simulation.num_envs, simulation.action_size
        observation, device = simulation.detach(), self._generator.device
        for _ in range(count):
            if at_random:
                action = 2 * torch.rand(shape, generator=self._generator, device=device) - 1
            else:
                noise = torch.randn(shape, generator=self._generator, device=device)
                action = self._act(observation, noise)
            step = simulation.step(action)
            self.replay.add(observation, action, step)
            total += float(step.reward.mean())
            seen.append(observation)
            observation = step.observation
        self.moments.update(torch.stack(seen))
        self.model.obs_mean.copy_(self.moments.mean)
        self.model.obs_scale.copy_(self.moments.std)
        self.steps += count * simulation.num_envs
        return total / count

    @torch.no_grad()
    def encoded(self, observation: Tensor) -> Tensor:
        """Latents (n, latent) of observations (n, observation_size)."""
        with self.accelerator.arithmetic():
            return self.model.encode(observation, self.of_policy.task_ids)

    @torch.no_grad()
    def _act(self, observation: Tensor, noise: Tensor | None = None) -> Tensor:
        latent = self.encoded(observation).unsqueeze(0)
        with self.accelerator.arithmetic():
            return self.of_policy.actors(latent, None if noise is None else noise.unsqueeze(0))[0]

    def act(self, observation: Tensor) -> Tensor:
        """See :class:`pwm.locomotion.learner.Learner`."""
        return self._act(observation)

    def tensors(self) -> Groups:
        """See :class:`pwm.locomotion.learner.Learner`."""
        of_model, of_policy = self.of_model.tensors(), self.of_policy.tensors()
        return (
            {f"{_MODEL}{name}": items for name, items in of_model.items()}
            | {f"{_POLICY}{name}": items for name, items in of_policy.items()}
            | {
                "observations": self.moments.tensors(),
                "replay": self.replay.tensors(),
                "simulation": self.simulation.state(),
                "random": {"replay": self._generator.get_state()},
                "progress": {
                    "steps": torch.tensor(self.steps),
                    "iterations": torch.tensor(self._iterations),
                },
            }
        )

    def load(self, checkpoint: Checkpoint) -> None:
        """See :class:`pwm.locomotion.learner.Learner`."""
        groups = checkpoint.tensors
        self.of_model.load(_part(checkpoint, _MODEL))
        self.of_policy.load(_part(checkpoint, _POLICY))
        self.moments.load(groups["observations"])
        self.replay.load(groups["replay"])
        self.simulation.load_state(groups["simulation"])
        self.steps = int(groups["progress"]["steps"])
        self._iterations = int(groups["progress"]["iterations"])
        restore(self._generator, groups["random"]["replay"], self._seed, f"replay/{self.steps}")

    def save(self, directory: Path) -> None:
        """The world model and the policy, as pretraining and extraction write them."""
        weights = {"model": self.model.state_dict()}
        save_checkpoint(directory / "world_model", KIND, weights, model_meta(self.model))
        policy = Policy.from_latent_actor(
            self.model, self.task, self.of_policy.actors, 0, self.config.policy.networks
        )
        made_by = {"command": "compare", "method": "pwm"}
        policy.save(directory / "policy", made_by, self.of_policy.critic(0))


def _part(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    """The groups whose names begin with a prefix, without it."""
    own = {
        name.removeprefix(prefix): items
        for name, items in checkpoint.tensors.items()
        if name.startswith(prefix)
    }
    return replace(checkpoint, tensors=own)


def n_step(reward: Tensor, terminated: Tensor, discount: float) -> tuple[Tensor, Tensor]:
    """What n steps bring, and what the value of the state after them counts, (B,) each.

    Args:
        reward: (n, B), 0 after an end.
        terminated: (n, B), true from the step on that an episode ended by itself with.
        discount: per step.
    """
    steps = len(reward)
    weights = discount ** torch.arange(steps, device=reward.device).unsqueeze(1)
    return (weights * reward).sum(0), (~terminated[-1]).float() * discount**steps
