"""Weights of tasks in a loss that follow the tasks' own losses.

Every method keeps its state in tensors that change in place, without Python branches on their
values, so that an update can be a CUDA graph and a checkpoint has all of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pwm.multitask.task_losses import TaskLosses

_SMALLEST = 1e-3


class TaskWeights(nn.Module):
    """Weights of K tasks in a mean over windows, equal unless a subclass says otherwise.

    The mean of the weights is 1 over the tasks that have had windows, so that balance changes what
    the gradient is made of and not its scale, on which clipping depends.

    Attributes:
        optimizer: of the module's parameters, where it has some; fused, so that it leaves all alone
            where its ``found_inf`` is not zero.
    """

    seen: Tensor

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(tasks, dtype=torch.bool))
        self.optimizer: torch.optim.Optimizer | None = None

    def raw(self) -> Tensor:
        """Weights up to a common factor, (K,)."""
        return torch.ones_like(self.seen, dtype=torch.float32)

    @torch.no_grad()
    def weights(self) -> Tensor:
        """(K,); 1 for tasks that have had no window yet."""
        raw = self.raw()
        mean = torch.where(self.seen, raw, 0.0).sum() / self.seen.sum().clamp(min=1)
        return torch.where(self.seen, raw / mean, 1.0)

    @torch.no_grad()
    def observe(
        self, losses: TaskLosses, skip: Tensor, gradient_norms: Tensor | None = None
    ) -> None:
        """Learn from an update.

        Args:
            losses: of which the first is the whole loss.
            skip: () bool, whether the update is not to count.
            gradient_norms: (K,) of each task's mean loss, weighted; where the method needs them.
        """
        there = (losses.counts > 0) & ~skip
        loss = torch.where(there, losses.means()[0], 1.0)
        self._learn(loss, there, skip, gradient_norms)
        self.seen |= there

    def _learn(
        self, loss: Tensor, there: Tensor, skip: Tensor, gradient_norms: Tensor | None
    ) -> None:
        """Change the state by the losses (K,) of the tasks that are there, (K,) bool."""

    def _step(self, parameter: nn.Parameter, grad: Tensor, skip: Tensor) -> None:
        assert self.optimizer is not None
        parameter.grad = grad
        self.optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
        self.optimizer.step()


class UncertaintyWeights(TaskWeights):
    """Weights exp(-s), where s minimizes exp(-s) L + s (Kendall, Gal and Cipolla, CVPR 2018).

    s is the logarithm of a task's learned variance of noise. It comes to rest where the weight is
    the inverse of the task's loss L.
    """

    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        self.log_variance = nn.Parameter(torch.zeros(tasks))

    def raw(self) -> Tensor:
        """exp(-s), (K,)."""
        return torch.exp(-self.log_variance)

    def _learn(
        self, loss: Tensor, there: Tensor, skip: Tensor, gradient_norms: Tensor | None
    ) -> None:
        grad = torch.where(there, 1 - self.raw() * loss, 0.0)
        self._step(self.log_variance, grad, skip)


class GradNormWeights(TaskWeights):
    """Weights that bring the norms of the tasks' gradients together (Chen et al., ICML 2018).

    The norm of task k's weighted gradient is to be mean(norms) * r_k^alpha, where r_k is what is
    left of the task's first loss, over the mean of that over tasks. Weights step along the
    gradient of the sum of absolute distances from there, and are divided by their mean.
    """

    first: Tensor

    def __init__(self, tasks: int, alpha: float) -> None:
        super().__init__(tasks)
        self.register_buffer("first", torch.ones(tasks))
        self.weight = nn.Parameter(torch.ones(tasks))
        self.alpha = alpha

    def raw(self) -> Tensor:
        """The learned weights, (K,)."""
        return self.weight.detach()

    def _learn(
        self, loss: Tensor, there: Tensor, skip: Tensor, gradient_norms: Tensor | None
    ) -> None:
        assert gradient_norms is not None
        self.first.copy_(torch.where(there & ~self.seen, loss, self.first))
        norms = torch.where(there, gradient_norms, 0.0)
        number = there.sum().clamp(min=1)
        left = torch.where(there, loss / self.first.clamp(min=1e-12), 0.0)
        rate = left / (left.sum() / number).clamp(min=1e-12)
        wanted = norms.sum() / number * rate**self.alpha
        unweighted = norms / self.weights()
        self._step(self.weight, torch.sign(norms - wanted) * unweighted, skip)
        seen = self.seen | there
        stepped = self.weight.clamp(min=_SMALLEST)
        mean = torch.where(seen, stepped, 0.0).sum() / seen.sum().clamp(min=1)
        self.weight.copy_(torch.where(seen & ~skip, stepped / mean, self.weight))


class DynamicWeightAverage(TaskWeights):
    """Weights by the rate at which losses fall (Liu, Johns and Davison, CVPR 2019).

    K softmax(w / temperature), where w is a task's mean loss of the last period over that of the
    period before. They are equal during the first two periods.
    """

    total: Tensor
    count: Tensor
    last: Tensor
    before: Tensor
    position: Tensor

    def __init__(self, tasks: int, temperature: float, period: int) -> None:
        super().__init__(tasks)
        for name in ("total", "count"):
            self.register_buffer(name, torch.zeros(tasks))
        for name in ("last", "before"):
            self.register_buffer(name, torch.full((tasks,), torch.nan))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.temperature, self.period = temperature, period

    def raw(self) -> Tensor:
        """The softmax, (K,); a task that lacks one of the two losses counts as one that stays."""
        rate = (self.last / self.before).nan_to_num(nan=1.0, posinf=1.0, neginf=1.0)
        return torch.softmax(rate / self.temperature, 0)

    def _learn(
        self, loss: Tensor, there: Tensor, skip: Tensor, gradient_norms: Tensor | None
    ) -> None:
        self.total += torch.where(there, loss, 0.0)
        self.count += there
        self.position += ~skip
        full = self.position >= self.period
        self.before.copy_(torch.where(full, self.last, self.before))
        mean = self.total / self.count.where(self.count > 0, torch.nan)
        self.last.copy_(torch.where(full, mean, self.last))
        for tensor in (self.total, self.count, self.position):
            tensor.mul_(~full)
