"""Batches onto a GPU while it computes: from pinned memory, on a stream of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch

from pwm.data.windows.batch import Batch


def pinned_memory(size: int) -> np.ndarray:
    """Bytes that a GPU copies from without the processor's help, (size,) uint8."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()


def on_gpu(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yields the batches on the GPU, each of them copied while the one before it is used.

    A batch in pinned memory is held until its copy is done, so that its memory is not filled anew
    before. Nothing here waits for the GPU.
    """
    stream = torch.cuda.Stream(device)
    ahead: deque[tuple[Batch, torch.cuda.Event]] = deque()
    held: deque[tuple[Batch, torch.cuda.Event]] = deque()
    for batch in batches:
        with torch.cuda.stream(stream):
            ahead.append((batch.to(device, non_blocking=True), stream.record_event()))
        held.append((batch, ahead[-1][1]))
        while held and held[0][1].query():
            held.popleft()
        if len(ahead) > 1:
            yield _handed_over(*ahead.popleft(), device)
    while ahead:
        yield _handed_over(*ahead.popleft(), device)
    stream.synchronize()  # before the last pinned memory is let go


def _handed_over(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """The batch for use on the current stream, after its copy."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    for tensor in batch:
        if tensor is not None:
            tensor.record_stream(current)
    return batch
