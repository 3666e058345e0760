"""SHAC: a policy by first-order gradients through the simulator (Xu et al., ICLR 2022)."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.core.validation import require_at_least, require_positive, require_share, require_valid
from pwm.extraction.losses import critic_loss, pessimistic_value
from pwm.extraction.stacked_networks import clipped_step
from pwm.locomotion.batched_simulation import BatchedSimulation
from pwm.locomotion.learner import task_of
from pwm.locomotion.observation_moments import ObservationMoments
from pwm.locomotion.short_horizon import Rollout, short_horizon_return, value_targets
from pwm.models.actor_critic import ActorCriticSize, Actors, Critics, action_masks
from pwm.models.policy import Policy
from pwm.runtime.acceleration import Acceleration
from pwm.runtime.checkpoint import Checkpoint, Groups
from pwm.runtime.seeding import restore, stream, stream_seed
from pwm.runtime.training_checkpoints import load_optimizer_tensors, optimizer_tensors

_MOST_BROKEN = 20  # gradients in a row that are not finite


@dataclass
class ShacConfig:
    """Settings of SHAC; the defaults are those of its paper, with the networks of PWM's.

    Attributes:
        num_envs: environments side by side.
        horizon: steps of a rollout, through which the gradient flows.
        discount, lam: of returns and TD(lambda) targets.
        networks: sizes of actor and critics.
        actor_lr, critic_lr, lr_final, betas: of Adam; rates fall linearly to ``lr_final``.
        actor_grad_norm, critic_grad_norm: largest gradient norms.
        critic_iterations, critic_batches: passes over a rollout's states, and parts of a pass.
        target_critic: the share of itself that the target critic keeps at every iteration.
    """

    num_envs: int = 64
    horizon: int = 32
    discount: float = 0.99
    lam: float = 0.95
    networks: ActorCriticSize = field(
        default_factory=lambda: ActorCriticSize(
            actor=[400, 200, 100], critic=[400, 200], min_log_std=-5.0
        )
    )
    actor_lr: float = 2e-3
    critic_lr: float = 5e-4
    lr_final: float = 1e-5
    betas: list[float] = field(default_factory=lambda: [0.7, 0.95])
    actor_grad_norm: float = 1.0
    critic_grad_norm: float = 100.0
    critic_iterations: int = 16
    critic_batches: int = 4
    target_critic: float = 0.2

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 1, "num_envs", "horizon", "critic_iterations", "critic_batches")
        require_at_least(self, 0, "actor_lr", "critic_lr", "lr_final")
        require_positive(self, "actor_grad_norm", "critic_grad_norm")
        require_share(self, "discount", "lam", "target_critic")
        require_valid("networks", self.networks)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise PwmError(f"betas={self.betas} must be two numbers of at least 0 and below 1.")


class Shac:
    """Actor and critics of one simulation, which is rolled out with gradients.

    Args:
        simulation: stepped by :meth:`iteration`.
        config: see :class:`ShacConfig`.
        total_steps: after which the learning rates have fallen.
        seed: of networks, noise and episodes.

    Raises:
        PwmError: for a simulation without gradients.
    """

    resumes = True

    def __init__(
        self, simulation: BatchedSimulation, config: ShacConfig, total_steps: int, seed: int
    ) -> None:
        if not simulation.differentiable:
            raise PwmError(
                f"{simulation.name} cannot be differentiated, which shac needs; leave shac out of "
                "methods=."
            )
        self.simulation, self.config, self._total, self._seed = (
            simulation,
            config,
            total_steps,
            seed,
        )
        self._observation = simulation.reset(stream_seed(seed, "episodes"))
        device = self._observation.device
        self._task = task_of(simulation)
        inputs, masks = (
            simulation.observation_size,
            action_masks([self._task], simulation.action_size),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "weights"))
            self.actors = Actors(inputs, masks, config.networks).to(device)
            self.critics = Critics(1, inputs, config.networks, 1.0).to(device)
        self.target = copy.deepcopy(self.critics).requires_grad_(False)
        self.accelerator = Acceleration(precision="float32").prepare(device)
        betas = config.betas[0], config.betas[1]
        self._actor_optimizer = self.accelerator.adam(
            self.actors.parameters(), lr=config.actor_lr, betas=betas
        )
        self._critic_optimizer = self.accelerator.adam(
            self.critics.parameters(), lr=config.critic_lr, betas=betas
        )
        self.moments = ObservationMoments(inputs, device)
        self.moments.update(self._observation)
        self._generator = stream(seed, "noise", device)
        self.steps = self._broken = 0

    def iteration(self) -> dict[str, float]:
        """One rollout, one step of the actor, and the critics' steps."""
        self._set_learning_rates()
        noise = self.draw_noise()
        with self.accelerator.arithmetic():
            rollout, seen = self.roll_out(noise)
            loss = self.loss(rollout)
        parameters = list(self.actors.parameters())
        grads = torch.autograd.grad(loss, parameters)
        limit = self.config.actor_grad_norm
        norm = float(clipped_step(self._actor_optimizer, parameters, grads, limit, 1))
        self._require_some_finite(norm)
        rollout = Rollout(*(part.detach() for part in rollout))
        of_critics = self._update_critics(rollout)
        self.moments.update(seen)
        self.steps += rollout.rewards.numel()
        return {
            "loss": float(loss.detach()),
            "reward": float(rollout.rewards.mean()),
            "actor_grad_norm": norm,
            "critic_loss": of_critics,
            "policy_std": float(self.actors.mean_std().detach()),
        }

    def _require_some_finite(self, norm: float) -> None:
        """Steps of gradients that are not finite change next to nothing, and are not for long."""
        self._broken = 0 if math.isfinite(norm) else self._broken + 1
        if self._broken >= _MOST_BROKEN:
            raise PwmError(
                f"the gradient through {self.simulation.name} was not finite {_MOST_BROKEN} times "
                "in a row; try a shorter shac.horizon, or another method."
            )

    def draw_noise(self) -> Tensor:
        """(H, N, action_size) of the next rollout."""
        simulation = self.simulation
        shape = self.config.horizon, simulation.num_envs, simulation.action_size
        return torch.randn(shape, generator=self._generator, device=self._generator.device)

    def roll_out(self, noise: Tensor) -> tuple[Rollout, Tensor]:
        """Act through a rollout; it, differentiable, and the observations (H, N, size) seen."""
        simulation, columns, seen = self.simulation, [], []
        observation = simulation.detach()
        for step_noise in noise:
            state = self.moments.normalized(observation)
            action = self.actors(state.unsqueeze(0), step_noise.unsqueeze(0))[0]
            step = simulation.step(action)
            value = self._target_value(step.final_observation)
            columns.append((state, step.reward, value, step.terminated, step.truncated))
            observation = step.observation
            seen.append(observation.detach())
        return Rollout(*map(torch.stack, zip(*columns, strict=True))), torch.stack(seen)

    def _target_value(self, observation: Tensor) -> Tensor:
        state = self.moments.normalized(observation).unsqueeze(0)
        return pessimistic_value(self.target, state)[0]

    def loss(self, rollout: Rollout) -> Tensor:
        """Minus the mean return of a rollout, per step (SHAC, eq. 5)."""
        returns = short_horizon_return(rollout, self.config.discount)
        return -returns.mean() / self.config.horizon

    def _update_critics(self, rollout: Rollout) -> float:
        """The loss of the last batch; the target critic follows."""
        config, device = self.config, rollout.rewards.device
        targets = value_targets(rollout, config.discount, config.lam).flatten()
        states = rollout.states.flatten(0, 1)
        parameters = list(self.critics.parameters())
        loss = torch.zeros(1, device=device)
        for _ in range(config.critic_iterations):
            order = torch.randperm(len(states), generator=self._generator, device=device)
            for part in order.chunk(config.critic_batches):
                with self.accelerator.arithmetic():
                    loss = critic_loss(self.critics, states[None, part], targets[None, part])
                grads = torch.autograd.grad(loss.sum(), parameters)
                clipped_step(self._critic_optimizer, parameters, grads, config.critic_grad_norm, 1)
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), parameters, strict=True):
                slow.lerp_(fast, 1 - config.target_critic)
        return float(loss.detach())

    def _set_learning_rates(self) -> None:
        config, progress = self.config, min(self.steps / self._total, 1.0)
        for optimizer, lr in (
            (self._actor_optimizer, config.actor_lr),
            (self._critic_optimizer, config.critic_lr),
        ):
            optimizer.param_groups[0]["lr"].fill_(lr + (config.lr_final - lr) * progress)

    @torch.no_grad()
    def act(self, observation: Tensor) -> Tensor:
        """See :class:`pwm.locomotion.learner.Learner`."""
        return self.actors(self.moments.normalized(observation).unsqueeze(0))[0]

    def tensors(self) -> Groups:
        """See :class:`pwm.locomotion.learner.Learner`."""
        return {
            "actors": self.actors.state_dict(),
            "critics": self.critics.state_dict(),
            "target": self.target.state_dict(),
            "actor_optimizer": optimizer_tensors(self._actor_optimizer),
            "critic_optimizer": optimizer_tensors(self._critic_optimizer),
            "observations": self.moments.tensors(),
            "simulation": self.simulation.state(),
            "random": {"noise": self._generator.get_state()},
            "progress": {"steps": torch.tensor(self.steps)},
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """See :class:`pwm.locomotion.learner.Learner`."""
        groups = checkpoint.tensors
        self.actors.load_state_dict(groups["actors"])
        self.critics.load_state_dict(groups["critics"])
        self.target.load_state_dict(groups["target"])
        load_optimizer_tensors(self._actor_optimizer, groups["actor_optimizer"])
        load_optimizer_tensors(self._critic_optimizer, groups["critic_optimizer"])
        self.moments.load(groups["observations"])
        self.simulation.load_state(groups["simulation"])
        self.steps = int(groups["progress"]["steps"])
        restore(self._generator, groups["random"]["noise"], self._seed, f"noise/{self.steps}")

    def save(self, directory: Path) -> None:
        """The policy, which :func:`pwm.load_policy` opens."""
        mean, std, networks = self.moments.mean, self.moments.std, self.config.networks
        policy = Policy.from_observation_actor(self._task, mean, std, self.actors, 0, networks)
        policy.save(directory / "policy", {"command": "compare", "method": "shac"})
