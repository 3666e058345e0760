"""One update of the world model: losses, optimizers, target network, learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pwm.core.validation import require_at_least, require_positive, require_share
from pwm.data.windows.sampler import Batch
from pwm.models.further_heads import FurtherHeads
from pwm.models.math import percentile_range
from pwm.models.world_model import KIND, WorldModel
from pwm.multitask.aggregation import make_aggregator
from pwm.multitask.balancing import TaskBalance
from pwm.multitask.changes import Changes
from pwm.multitask.config import Balancing, require_balance
from pwm.multitask.task_losses import TaskLosses, by_task
from pwm.pretraining.head_ensemble import HeadEnsemble
from pwm.pretraining.losses import (
    LatentRollout,
    LossWeights,
    PriorNoise,
    dynamics_gradient_loss,
    model_terms,
    prior_loss,
    roll_out,
    total_loss,
    value_loss,
)
from pwm.pretraining.task_gradients import Gradients, TaskGradients
from pwm.runtime.acceleration import Accelerator, Metrics
from pwm.runtime.checkpoint import Checkpoint, Groups
from pwm.runtime.clipping import step_unless
from pwm.runtime.training_checkpoints import load_optimizer_tensors, optimizer_tensors, save_step


@dataclass
class LearnerConfig:
    """What an update depends on (TD-MPC2 and PWM, appendices on hyperparameters).

    Attributes:
        steps: updates in all; the learning rate reaches ``lr_final`` at the last.
        rho: weight of a predicted step relative to the one before it.
        loss: coefficients of the loss terms.
        lr, lr_final, warmup: linear warm-up over ``warmup`` updates, then linear decay.
        encoder_lr_scale: factor on the encoder's learning rate.
        grad_clip: largest gradient norm.
        target_tau: rate of the target Q ensemble and of the running Q scale.
        balance: how much a task counts. Which windows a batch has: ``uniform`` (or ``task``), as
            many of every task; ``size`` (or ``rows``), every window with the same chance;
            ``progress``, more of tasks whose losses change. Or weights of equally many windows,
            learned: ``uncertainty``, ``gradnorm``, or by how fast losses fall: ``dwa``.
        aggregate: how the tasks' gradients make one: their ``mean``, or a method of torchjd, for
            which the loss is taken task by task.
        balancing: what ``balance`` depends on.
    """

    steps: int = 100_000
    rho: float = 0.99
    loss: LossWeights = field(default_factory=LossWeights)
    lr: float = 3e-4
    lr_final: float = 3e-5
    warmup: int = 500
    encoder_lr_scale: float = 0.3
    grad_clip: float = 20.0
    target_tau: float = 0.01
    balance: str = "task"
    aggregate: str = "mean"
    balancing: Balancing = field(default_factory=Balancing)

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 1, "steps")
        require_at_least(self, 0, "lr", "lr_final", "warmup", "encoder_lr_scale")
        require_at_least(self, 0, "loss.consistency", "loss.reward", "loss.value")
        require_at_least(self, 0, "loss.termination")
        require_positive(self, "rho", "grad_clip")
        require_share(self, "rho", "target_tau")
        require_balance(self)


class WorldModelLearner:
    """The world model with everything an update changes.

    An update whose loss or gradient is not finite is skipped on the device: weights, moments,
    target network and running scale stay as they were, and it is counted.

    Args:
        discount: (tasks,) per-task discounts of the Q ensemble's targets.
        accelerator: how the arithmetic runs; eagerly, in the model's precision, by default.
        changes: what of the model trains and is saved, if that is not the model as it is.
        heads: further heads on the model's encoder, which train beside it.

    Attributes:
        skipped: () int64, updates skipped so far.
        skipped_in_a_row: () int64, updates skipped since the last that was not.
        balance: how much the tasks count.
        losses: of the last update by task, the whole loss first and then its terms by the names
            of ``loss_names``; good until the next.
    """

    def __init__(
        self,
        model: WorldModel,
        config: LearnerConfig,
        discount: Tensor,
        accelerator: Accelerator | None = None,
        changes: Changes | None = None,
        heads: FurtherHeads | None = None,
    ) -> None:
        self.model, self.config, self.discount = model, config, discount
        self.changes = changes or Changes(model)
        accelerator = accelerator or Accelerator(discount.device)
        aggregator = make_aggregator(config.aggregate)
        if aggregator is not None or changes is not None:  # on the host; of weights made anew
            accelerator = replace(accelerator, captures=False)
        self.accelerator = accelerator
        # Fewer kernels for more arithmetic: it pays where starting kernels takes the time.
        self._in_two_parts = self.accelerator.replays
        self._captured_update = self.accelerator.capture(self._update)
        apart = set(model.encoder.parameters())
        if model.has_q:
            apart |= {*model.prior.parameters(), *model.q_target.parameters()}
        rest = [p for p in model.parameters() if p not in apart]
        encoder = list(model.encoder.parameters())
        self.trained = [p for p in (*encoder, *rest) if p.requires_grad]
        self.optimizer = self.accelerator.adam(encoder, rest, lr=config.lr)
        tasks = len(discount)
        self.balance = TaskBalance(
            config.balance, config.balancing, tasks, self.accelerator, model.encoder[-1]
        )
        self._task_gradients = None
        if aggregator is not None:
            of_tasks = {model.task_emb.weight} if model.size.task_dim else set()
            of_tasks |= {*self.changes.own}
            own = [p for p in self.trained if p in of_tasks]
            shared = [p for p in self.trained if p not in of_tasks]
            self._task_gradients = TaskGradients(aggregator, shared, own, tasks)
        self.losses = TaskLosses(torch.zeros(1, tasks), torch.zeros(tasks))
        self.loss_names: tuple[str, ...] = ()
        prior = list(model.prior.parameters()) if model.has_q else []
        self.prior_parameters = [p for p in prior if p.requires_grad]
        self._trains_q = bool(self.prior_parameters)  # Q and prior train together, or neither
        self.prior_optimizer = (
            self.accelerator.adam(self.prior_parameters, lr=config.lr, eps=1e-5)
            if self._trains_q
            else None
        )
        self.heads = None
        if heads is not None:
            self.heads = HeadEnsemble(model, heads, config, self.accelerator)
        self.q_scale = torch.ones((), device=discount.device)
        self.skipped = torch.zeros((), dtype=torch.int64, device=discount.device)
        self.skipped_in_a_row = torch.zeros_like(self.skipped)

    def update(self, batch: Batch) -> Metrics:
        """One gradient step on a batch of windows.

        Returns:
            Scalar metrics on the device, good until the next call.
        """
        noise = self._noise(batch) if self._trains_q else None
        metrics, self.losses = self._captured_update(batch, noise)
        return metrics

    def _update(self, batch: Batch, noise: PriorNoise | None) -> tuple[Metrics, TaskLosses]:
        """The update of a batch; there is noise if there are Q and prior."""
        loss, metrics, rollout, losses = self._gradients(batch, noise)
        gradient_norms = self._gradient_norms(batch)
        norm = self._clip(self.trained)
        skip = ~(loss.isfinite() & norm.isfinite())
        if self.heads is not None:  # while embeddings are those that the latents are of
            metrics |= self.heads.update(batch, rollout, skip)
        step_unless(skip, self.optimizer)
        self.balance.observe(losses, skip, gradient_norms)
        metrics |= {"grad_norm": norm, **self._latent_statistics(rollout)}
        if noise is not None:
            prior_metrics, skip = self._update_prior(batch, rollout, noise, skip)
            metrics |= prior_metrics
            self._update_target(skip)
        self.skipped += skip
        self.skipped_in_a_row.add_(1).mul_(skip)
        return metrics | {"skipped_steps": self.skipped.clone()}, losses

    def _loss(
        self, batch: Batch, noise: PriorNoise | None, weights: Tensor | None = None
    ) -> tuple[Tensor, Metrics, LatentRollout, TaskLosses]:
        """The loss of all but the prior, and what it was made of.

        Args:
            batch: windows.
            noise: there if there are Q and prior.
            weights: of windows, (B,); of the loss alone, and not of what is reported.

        Returns:
            The loss; its terms as metrics; the rollout it was taken on; losses by task.
        """
        config = self.config
        with self.changes.of_batch(batch.task):
            rollout = roll_out(self.model, batch, frozen=self._in_two_parts)
            terms = model_terms(self.model, batch, rollout, config.rho)
        if noise is not None:
            discount = self.discount[batch.task]
            terms["value"] = value_loss(self.model, batch, rollout, discount, config.rho, noise)
        loss, whole = total_loss(terms, config.loss, weights)
        self.loss_names = ("loss", *(f"{name}_loss" for name in terms))
        windows = torch.stack([whole, *(term.windows.detach() for term in terms.values())])
        losses = by_task(windows, batch.task, len(self.discount))
        metrics = {f"{k}_loss": term.mean.detach() for k, term in terms.items()}
        if (penalty := self.changes.penalty()) is not None:
            loss, metrics = loss + penalty, metrics | {"penalty": penalty.detach()}
        return loss, metrics, rollout, losses

    def _gradients(self, batch: Batch, noise: PriorNoise | None) -> Gradients:
        """Put the gradients of :meth:`_loss` in place."""
        if self._task_gradients is not None:
            return self._aggregated_gradients(self._task_gradients, batch, noise)
        with self.accelerator.arithmetic():
            loss, metrics, rollout, losses = self._loss(
                batch, noise, self.balance.of_windows(batch.task)
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self._in_two_parts:
            with self.accelerator.arithmetic():
                of_dynamics = dynamics_gradient_loss(self.model, batch, rollout)
            of_dynamics.backward()
        return Gradients(loss.detach(), metrics, rollout, losses)

    def _aggregated_gradients(
        self, gradients: TaskGradients, batch: Batch, noise: PriorNoise | None
    ) -> Gradients:
        found = gradients.take(self._loss_of_a_task, batch, noise)
        gradients.aggregate(self.balance.of_each_task(), found.losses.counts)
        return found

    def _loss_of_a_task(
        self, batch: Batch, noise: PriorNoise | None
    ) -> tuple[Tensor, Metrics, LatentRollout, TaskLosses]:
        with self.accelerator.arithmetic():
            return self._loss(batch, noise)

    def _gradient_norms(self, batch: Batch) -> Tensor | None:
        """Of the tasks' gradients in one layer, (K,), if the balance learns from them."""
        return self.balance.gradient_norms(batch.task)

    def by_task(self) -> dict[str, float]:
        """Losses of the last update by task and name, and what balances them now.

        Tasks without a window in the update are left out.
        """
        found = dict(zip(self.loss_names, self.losses.means(), strict=True)) | self.balance.shown()
        there = (self.losses.counts > 0).tolist()
        columns = zip(*(values.tolist() for values in found.values()), strict=True)
        return {
            f"{task.name}/{name}": float(f"{value:.6g}")
            for task, has, values in zip(self.model.suite, there, columns, strict=True)
            if has
            for name, value in zip(found, values, strict=True)
        }

    def _clip(self, parameters: list[nn.Parameter]) -> Tensor:
        """Clip the parameters' gradients; returns their norm before that."""
        return nn.utils.clip_grad_norm_(parameters, self.config.grad_clip)

    @torch.no_grad()
    def _latent_statistics(self, rollout: LatentRollout) -> dict[str, Tensor]:
        """How far the representation is from collapse, and imagined latents from uniform.

        ``latent_std`` is the encoder's standard deviation over the batch, 0 where all observations
        look alike. ``latent_peak`` is the largest entry of a simplex at the last imagined step,
        from 1 / simnorm_dim (says nothing) to 1 (one-hot).
        """
        groups = rollout.latents[-1].unflatten(-1, (-1, self.model.size.simnorm_dim))
        return {
            "latent_std": rollout.targets[0].std(0, correction=0).mean(),
            "latent_peak": groups.amax(-1).mean(),
        }

    def _noise(self, batch: Batch) -> PriorNoise:
        return self._draw_noise(*batch.action.shape)

    def _draw_noise(self, horizon: int, size: int, action_dim: int) -> PriorNoise:
        device = self.discount.device
        members = torch.rand(2, self.model.size.num_q, device=device).argsort(-1)[:, :2]
        return PriorNoise(
            torch.randn(horizon, size, action_dim, device=device),
            torch.randn(horizon + 1, size, action_dim, device=device),
            members.flatten(),
        )

    def _update_prior(
        self, batch: Batch, rollout: LatentRollout, noise: PriorNoise, skip: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Step the prior unless ``skip``; returns its metrics, and ``skip`` or its own fault."""
        assert self.prior_optimizer is not None
        loss, q = self._prior_gradients(batch, rollout, noise)
        norm = self._clip(self.prior_parameters)
        skip = skip | ~(loss.isfinite() & norm.isfinite())
        step_unless(skip, self.prior_optimizer)
        scale = self.q_scale.lerp(percentile_range(q), self.config.target_tau)
        self.q_scale.copy_(torch.where(skip, self.q_scale, scale))
        metrics = {"prior_loss": loss, "prior_grad_norm": norm}
        return metrics | {"q_scale": self.q_scale.clone()}, skip

    def _prior_gradients(
        self, batch: Batch, rollout: LatentRollout, noise: PriorNoise
    ) -> tuple[Tensor, Tensor]:
        """Put the prior's gradients in place; returns its loss, and Q-values for their scale."""
        with self.accelerator.arithmetic():
            loss, q = prior_loss(
                self.model, rollout, batch.task, self.q_scale, self.config.rho, noise
            )
        grads = torch.autograd.grad(loss, self.prior_parameters)
        for parameter, grad in zip(self.prior_parameters, grads, strict=True):
            parameter.grad = grad
        return loss.detach(), q

    @torch.no_grad()
    def _update_target(self, skip: Tensor) -> None:
        target: list[Tensor] = list(self.model.q_target.parameters())
        online: list[Tensor] = list(self.model.q_ensemble.parameters())
        distance = torch._foreach_sub(online, target)
        torch._foreach_mul_(distance, self.config.target_tau * ~skip)
        torch._foreach_add_(target, distance)

    def set_learning_rate(self, step: int) -> float:
        """Linear warm-up, then linear decay to ``lr_final`` at the last step."""
        config = self.config
        progress = min(step / max(config.steps, 1), 1.0)
        lr = config.lr + (config.lr_final - config.lr) * progress
        lr *= min((step + 1) / max(config.warmup, 1), 1.0)
        encoder, rest = self.optimizer.param_groups
        encoder["lr"].fill_(lr * config.encoder_lr_scale)
        rest["lr"].fill_(lr)
        if self.prior_optimizer is not None:
            self.prior_optimizer.param_groups[0]["lr"].fill_(lr)
        if self.heads is not None:
            self.heads.set_learning_rate(lr)
        return lr

    def whole_weights(self) -> AbstractContextManager[None]:
        """Where the model can be called: anywhere, unless its weights are divided among ranks."""
        return nullcontext()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All state as named tensors, for a checkpoint."""
        groups = {
            "model": self.changes.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer),
            "random": {"cpu": torch.get_rng_state()},
            "skipped": {"total": self.skipped, "in_a_row": self.skipped_in_a_row},
        }
        if self.prior_optimizer is not None:
            groups["prior_optimizer"] = optimizer_tensors(self.prior_optimizer)
            groups["scale"] = {"q": self.q_scale}
        groups |= self.balance.tensors() | (self.heads.tensors() if self.heads else {})
        if self.discount.is_cuda:
            groups["random"]["cuda"] = torch.cuda.get_rng_state(self.discount.device)
        return groups

    def broken_weights(self) -> list[str]:
        """Names of the model's tensors that are not finite."""
        state = self.model.state_dict()
        return [name for name, tensor in state.items() if not tensor.isfinite().all()]

    def save(self, directory: Path, step: int, meta: Mapping[str, Any], keep_last: int) -> None:
        """Write a training checkpoint as `pwm.runtime.checkpoint.save_step` does."""
        save_step(directory, KIND, step, self.tensors(), meta, keep_last)

    def layout(self) -> Groups | None:
        """The tensors to read a checkpoint's shards into; None for whole ones on the CPU."""
        return None

    def load(self, checkpoint: Checkpoint) -> None:
        """Restore what :meth:`tensors` gave."""
        groups = checkpoint.tensors
        self.changes.load_state_dict(groups["model"])
        load_optimizer_tensors(self.optimizer, groups["optimizer"])
        if self.prior_optimizer is not None:
            load_optimizer_tensors(self.prior_optimizer, groups["prior_optimizer"])
            self.q_scale.copy_(groups["scale"]["q"])
        self.balance.load(groups)
        if self.heads is not None:
            self.heads.load(checkpoint)
        if "skipped" in groups:  # checkpoints of before it was counted do not have it
            self.skipped.copy_(groups["skipped"]["total"])
            self.skipped_in_a_row.copy_(groups["skipped"]["in_a_row"])
        torch.set_rng_state(groups["random"]["cpu"])
        if self.discount.is_cuda and "cuda" in groups["random"]:
            torch.cuda.set_rng_state(groups["random"]["cuda"], self.discount.device)
