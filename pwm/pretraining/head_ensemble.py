"""Training further dynamics and reward heads beside a world model, without changing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pwm.data.windows.batch import Batch
from pwm.models.further_heads import HEADS, FurtherHeads
from pwm.models.world_model import WorldModel
from pwm.pretraining.losses import LatentRollout, total_loss, world_model_loss
from pwm.runtime.acceleration import Accelerator, Metrics
from pwm.runtime.checkpoint import Checkpoint
from pwm.runtime.clipping import step_unless
from pwm.runtime.training_checkpoints import load_optimizer_tensors, optimizer_tensors

if TYPE_CHECKING:
    from pwm.pretraining.learner import LearnerConfig


class HeadEnsemble:
    """The further heads of a world model and their optimizer.

    Each follows the recorded actions from the latents that the model's encoder gives, on its own
    half of the windows. Nothing of their losses reaches encoder and task embeddings, whose latents
    the first member shapes: so the world model is, bit for bit, what it is without them.

    Args:
        model: the world model.
        heads: on its encoder.
        config: coefficients of the loss, and how steps are taken.
        accelerator: how the arithmetic runs.
    """

    def __init__(
        self,
        model: WorldModel,
        heads: FurtherHeads,
        config: LearnerConfig,
        accelerator: Accelerator,
    ) -> None:
        self.heads, self._config, self._accelerator = heads, config, accelerator
        self._model, self._models = model, heads.models(model)
        self._parameters = list(heads.parameters())
        self.optimizer = accelerator.adam(self._parameters, lr=config.lr)

    def update(self, batch: Batch, rollout: LatentRollout, skip: Tensor) -> Metrics:
        """A step on a batch of windows, unless ``skip``, or if a loss is not finite.

        Args:
            batch: windows.
            rollout: the model's, of which the first latents and the targets are taken.
            skip: () bool.
        """
        with self._accelerator.arithmetic():
            losses = self.losses(batch, rollout)
        grads = torch.autograd.grad(losses.sum(), self._parameters)
        for parameter, grad in zip(self._parameters, grads, strict=True):
            parameter.grad = grad
        norm = nn.utils.clip_grad_norm_(self._parameters, self._config.grad_clip)
        loss = losses.detach().mean()
        step_unless(skip | ~(loss.isfinite() & norm.isfinite()), self.optimizer)
        return {"heads_loss": loss, "heads_grad_norm": norm}

    def losses(self, batch: Batch, rollout: LatentRollout) -> Tensor:
        """(members,) losses, each a mean over the windows that the member learns from."""
        counted, config = self.heads.windows(batch.obs[0], batch.action[0]), self._config
        weights = counted / counted.mean(1, keepdim=True).clamp(min=1 / counted.shape[1])
        embedding = self._model.task_embedding(batch.task).detach()
        found = []
        for model, of_windows in zip(self._models, weights, strict=True):
            latents = [rollout.latents[0].detach()]
            for action in batch.action:
                latents.append(model.next(latents[-1], action, embedding))
            own = LatentRollout(torch.stack(latents), rollout.targets)
            terms = world_model_loss(model, batch, own, config.rho)
            found.append(total_loss(terms, config.loss, of_windows)[0])
        return torch.stack(found)

    def set_learning_rate(self, lr: float) -> None:
        """That of the next steps."""
        self.optimizer.param_groups[0]["lr"].fill_(lr)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All state as named tensors, for a checkpoint."""
        return {
            HEADS: self.heads.state_dict(),
            "heads_optimizer": optimizer_tensors(self.optimizer),
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Restore what :meth:`tensors` gave."""
        self.heads.load_state_dict(checkpoint.tensors[HEADS])
        load_optimizer_tensors(self.optimizer, checkpoint.tensors["heads_optimizer"])
