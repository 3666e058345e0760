"""Updates of the world model by several ranks, or in several passes, as if by one.

The model stays the plain one: `torch.nn.parallel.DistributedDataParallel` or
`torch.distributed.fsdp.fully_shard` are put around its loss from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from pwm.core.files import make_directory
from pwm.data.windows.sampler import Batch
from pwm.models.world_model import KIND, WorldModel
from pwm.multitask.changes import Changes
from pwm.multitask.task_losses import TaskLosses
from pwm.pretraining.fsdp import divide
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner
from pwm.pretraining.losses import LatentRollout, PriorNoise, prior_loss
from pwm.pretraining.task_gradients import Gradients, TaskGradients
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.checkpoint import Checkpoint, Groups
from pwm.runtime.checkpoint_index import write_index
from pwm.runtime.distributed import Ranks
from pwm.runtime.seeding import stream_seed
from pwm.runtime.shards import write_shards
from pwm.runtime.training_checkpoints import clear_step, delete_old_steps, save_step, step_name


class ParallelLearner(WorldModelLearner):
    """A learner whose gradients are means over ranks, and on each over passes one after the other.

    A batch is divided into as many parts as there are ranks times passes: rank i of n takes the
    windows i, i + n, ... (the sampler's share), and of these pass j of m takes j, j + m, ... Random
    numbers of the loss are drawn for the whole batch and divided likewise; dropout has a stream for
    each part of each update. So n ranks with m passes do what one rank with n m passes does, and
    without dropout what the plain learner does with the whole batch, up to rounding.

    Args:
        model: on the device, or, to be divided among ranks, as :func:`pwm.pretraining.fsdp.divide`
            takes it.
        ranks: the processes that take part.
        passes: parts that a rank takes one after the other before each optimizer step.
        seed: of the run, for dropout.
        changes: as for the plain learner.
    """

    def __init__(
        self,
        model: WorldModel,
        config: LearnerConfig,
        discount: Tensor,
        accelerator: Accelerator,
        ranks: Ranks,
        passes: int,
        seed: int,
        changes: Changes | None = None,
    ) -> None:
        self._ranks, self._passes, self._seed = ranks, passes, seed
        self._sharded = ranks.parallel == "fsdp"
        self._whole_loss = _wrapped(_Loss(model, self._loss), model, discount.device, ranks)
        accelerator = replace(accelerator, captures=False)  # collectives stay out of CUDA graphs
        super().__init__(
            model, config, discount, accelerator, changes
        )  # of the parameters as they are now
        self._step = 0

    # --- an update -------------------------------------------------------------------------------

    def set_learning_rate(self, step: int) -> float:
        """As the plain learner; dropout follows the step."""
        self._step = step
        return super().set_learning_rate(step)

    def _noise(self, batch: Batch) -> PriorNoise:
        """This rank's share of the numbers of the whole batch, which all ranks draw alike."""
        horizon, size, action_dim = batch.action.shape
        whole = self._draw_noise(horizon, size * self._ranks.size, action_dim)
        return whole.part(slice(self._ranks.rank, None, self._ranks.size))

    def _gradients(self, batch: Batch, noise: PriorNoise | None) -> Gradients:
        if self._task_gradients is not None:
            return self._aggregated_gradients(self._task_gradients, batch, noise)
        self.optimizer.zero_grad(set_to_none=True)
        weights = self.balance.of_windows(batch.task)
        found = []
        for i in range(self._passes):
            share = slice(i, None, self._passes)
            part = None if noise is None else noise.part(share)
            of_windows = None if weights is None else weights[share]
            with self._synchronizing(i == self._passes - 1), self._own_stream("loss", i):
                with self.accelerator.arithmetic():
                    loss, *rest = self._whole_loss(batch.part(share), part, of_windows)
                (loss / self._passes).backward()
            found.append(Gradients(loss.detach(), *rest))
        latents = _interleaved([part.rollout.latents.detach() for part in found])
        targets = _interleaved([part.rollout.targets for part in found])
        return self._of_all_ranks(found, LatentRollout(latents, targets))

    def _aggregated_gradients(
        self, gradients: TaskGradients, batch: Batch, noise: PriorNoise | None
    ) -> Gradients:
        with self._own_stream("loss", 0):
            found = gradients.take(self._loss_of_a_task, batch, noise)
        found = self._of_all_ranks([found], found.rollout)
        ranks = self._ranks
        gradients.aggregate(
            self.balance.of_each_task(), found.losses.counts, ranks.mean, ranks.broadcast
        )
        return found

    def _of_all_ranks(self, parts: list[Gradients], rollout: LatentRollout) -> Gradients:
        """Means over this rank's parts and over ranks; losses by task up to a common factor."""
        names, losses = list(parts[0].metrics), parts[0].losses
        rows = [
            torch.cat(
                [
                    torch.stack([part.loss, *part.metrics.values()]),
                    part.losses.sums.flatten(),
                    part.losses.counts,
                ]
            )
            for part in parts
        ]
        mean = self._ranks.mean(torch.stack(rows).mean(0))
        tasks = len(losses.counts)
        loss, *values = mean[: 1 + len(names)]
        sums = mean[1 + len(names) : -tasks].view_as(losses.sums)
        return Gradients(
            loss, dict(zip(names, values, strict=True)), rollout, TaskLosses(sums, mean[-tasks:])
        )

    def _gradient_norms(self, batch: Batch) -> Tensor | None:
        passes = [batch.task[i :: self._passes] for i in range(self._passes)]
        return self.balance.gradient_norms(torch.cat(passes), self._ranks.all_gather)

    def _prior_gradients(
        self, batch: Batch, rollout: LatentRollout, noise: PriorNoise
    ) -> tuple[Tensor, Tensor]:
        losses, values = [], []
        total = torch.zeros((), device=self.discount.device)
        for i in range(self._passes):
            share = slice(i, None, self._passes)
            part = LatentRollout(rollout.latents[:, share], rollout.targets[:, share])
            with self._own_stream("prior", i), self.accelerator.arithmetic():
                loss, q = prior_loss(
                    self.model, part, batch.task[share], self.q_scale, self.config.rho,
                    noise.part(share),
                )  # fmt: skip
            grads = torch.autograd.grad(loss, self.prior_parameters)
            total = total + torch.cat([grad.flatten() for grad in grads]) / self._passes
            losses.append(loss.detach())
            values.append(q)
        sizes = [parameter.numel() for parameter in self.prior_parameters]
        for parameter, grad in zip(
            self.prior_parameters, self._ranks.mean(total).split(sizes), strict=True
        ):
            parameter.grad = grad.view_as(parameter)
        self._reshard()
        mean_loss = self._ranks.mean(torch.stack(losses).mean(0))
        return mean_loss, self._ranks.all_gather(torch.cat(values))

    def _clip(self, parameters: list[nn.Parameter]) -> Tensor:
        norm = super()._clip(parameters)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    @torch.no_grad()
    def _latent_statistics(self, rollout: LatentRollout) -> dict[str, Tensor]:
        """Those of the whole batch."""
        statistics = super()._latent_statistics(rollout)
        if self._ranks.size == 1:
            return statistics
        var, mean = torch.var_mean(rollout.targets[0], 0, correction=0)
        shift = mean - self._ranks.mean(mean.clone())
        std = self._ranks.mean(var + shift.square()).sqrt().mean()
        return {"latent_std": std, "latent_peak": self._ranks.mean(statistics["latent_peak"])}

    def _synchronizing(self, last: bool) -> Any:
        """Where gradients are added up, and in the last pass also averaged over the ranks."""
        if isinstance(self._whole_loss, FSDPModule):
            self._whole_loss.set_requires_gradient_sync(last)
        elif isinstance(self._whole_loss, DistributedDataParallel) and not last:
            return self._whole_loss.no_sync()
        return nullcontext()

    @contextmanager
    def _own_stream(self, name: str, number: int) -> Iterator[None]:
        """Inside, dropout draws from a stream of this part of the batch in this update."""
        parts = self._ranks.size * self._passes
        if not self.model.has_q or parts == 1:
            yield
            return
        part = self._ranks.rank + self._ranks.size * number
        device = self.discount.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(stream_seed(self._seed, f"{name}/{self._step}/{part}"))
            yield

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """As the plain learner's; of a sharded model every rank gathers what it calls."""
        if isinstance(self._whole_loss, FSDPModule):
            self._whole_loss.unshard()
        yield
        self._reshard()

    def _reshard(self) -> None:
        """Free gathered weights, which are stale once the shards have changed.

        After a backward pass to all weights that has been done.
        """
        for module in self._whole_loss.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    # --- saving and going on ---------------------------------------------------------------------

    def broken_weights(self) -> list[str]:
        """As the plain learner's; of all ranks."""
        found = [
            name
            for name, tensor in self.model.state_dict().items()
            if not _local(tensor).isfinite().all()
        ]
        return sorted({name for names in self._ranks.all_gather_object(found) for name in names})

    def save(self, directory: Path, step: int, meta: Mapping[str, Any], keep_last: int) -> None:
        """As the plain learner's; of a sharded model every rank writes its part.

        What the last step leaves is written in one piece.
        """
        if not self._sharded:
            with self._ranks.raise_together():
                if self._ranks.main:
                    super().save(directory, step, meta, keep_last)
            return
        if step < self.config.steps:
            save_sharded_step(directory, KIND, step, self.tensors(), meta, keep_last, self._ranks)
            return
        whole: Groups = {}
        for group, tensors in self.tensors().items():
            names = sorted(tensors)  # the order of all ranks, whatever they were loaded from
            whole[group] = {name: _whole(tensors[name], self._ranks.main) for name in names}
        with self._ranks.raise_together():
            if self._ranks.main:
                save_step(directory, KIND, step, whole, meta, keep_last)

    def load(self, checkpoint: Checkpoint) -> None:
        """As the plain learner's; whole tensors are divided among the ranks."""
        super().load(replace(checkpoint, tensors=self._laid_out(checkpoint.tensors)))

    def layout(self) -> Groups | None:
        """As the plain learner's."""
        if not self._sharded:
            return None
        for optimizer in (self.optimizer, self.prior_optimizer, self.balance.optimizer):
            if optimizer is not None:
                _fill_state(optimizer)
        return self.tensors()

    def _laid_out(self, groups: Groups) -> Groups:
        layout = self.layout()
        if layout is None:
            return groups
        return {
            group: {
                name: _laid_out_like(tensor, layout.get(group, {}).get(name))
                for name, tensor in tensors.items()
            }
            for group, tensors in groups.items()
        }


class _Loss(nn.Module):
    """The loss as a module of the parts that it calls, for what is put around modules.

    The prior is left out: its gradients are taken apart from the others.
    """

    def __init__(self, model: WorldModel, loss: Callable[..., Any]) -> None:
        super().__init__()
        self._loss = loss
        self.parts = nn.ModuleList(part for name, part in model.named_children() if name != "prior")

    def forward(self, batch: Batch, noise: PriorNoise | None, weights: Tensor | None) -> Any:
        """What :meth:`WorldModelLearner._loss` gives."""
        return self._loss(batch, noise, weights)


def _wrapped(loss: nn.Module, model: WorldModel, device: torch.device, ranks: Ranks) -> nn.Module:
    if ranks.parallel == "ddp":
        on_gpu = device.type == "cuda"
        return DistributedDataParallel(
            loss, device_ids=[device] if on_gpu else None, gradient_as_bucket_view=True
        )
    if ranks.parallel == "fsdp":
        divide(loss, model, device, ranks)
    return loss


def _interleaved(parts: list[Tensor]) -> Tensor:
    """Parts (T, B / m, ...), of which the j-th has the entries j, j + m, ... -> (T, B, ...)."""
    return torch.stack(parts, 2).flatten(1, 2)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _whole(tensor: Tensor, keep: bool) -> Tensor:
    """A sharded tensor put together by all ranks, on the CPU; nothing of it unless ``keep``."""
    if not isinstance(tensor, DTensor):
        return tensor
    whole = tensor.full_tensor()
    return whole.cpu() if keep else torch.empty(0)


def _laid_out_like(tensor: Tensor, like: Tensor | None) -> Tensor:
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def _fill_state(optimizer: torch.optim.Optimizer) -> None:
    """Have an optimizer that has not stepped yet make its moments, zeros."""
    if optimizer.state:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.found_inf = torch.ones((), device=parameter.device)  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def save_sharded_step(
    directory: Path,
    kind: str,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    meta: Mapping[str, Any],
    keep_last: int,
    ranks: Ranks,
) -> None:
    """As `checkpoint.save_step`, by all ranks: each writes the parts of tensors that it holds.

    The main rank commits when all are on the disk, so there is at every moment the checkpoint of
    before or the new one.
    """
    newest = directory / step_name(step)
    with ranks.raise_together():
        if ranks.main:
            clear_step(newest)
            make_directory(newest)
    with ranks.raise_together():
        mine = write_shards(newest, tensors)
    files = {
        name: digest for part in ranks.all_gather_object(mine) for name, digest in part.items()
    }
    with ranks.raise_together():
        if ranks.main:
            write_index(newest, kind, {"step": step, **meta}, shards=files)
            delete_old_steps(directory, newest, keep_last)
