"""What of a model trains, and is saved, in another form than the model's own parameters."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn


class Changes:
    """Nothing is changed: a model as it is.

    Args:
        model: whose tensors are saved.

    Attributes:
        meta: what the JSON part of a checkpoint says of it.
        own: parameters of which every task, or group of tasks, has a part of its own.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.meta: dict[str, Any] = {}
        self.own: list[nn.Parameter] = []

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint has of the model."""
        return self._model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._model.load_state_dict(state)

    def of_tasks(self, task: Tensor) -> AbstractContextManager[None]:
        """Inside, the model is called with windows (B,) of these tasks."""
        return nullcontext()

    def of_batch(self, task: Tensor) -> AbstractContextManager[None]:
        """Inside, the model is called with a batch of training, of these tasks (B,)."""
        return self.of_tasks(task)

    def penalty(self) -> Tensor | None:
        """What is added to the loss, a scalar, if there is something."""
        return None
