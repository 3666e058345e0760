"""The processes that train one model together, which ``torchrun`` starts and watches over."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from pwm.core.errors import PwmError
from pwm.core.progress import console
from pwm.core.signals import Interrupted, StopSignals
from pwm.core.validation import require_choice

PARALLEL = ("auto", "ddp", "fsdp")

_SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
_LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "tcpstore")


class Ranks:
    """One process among those that train together, or the only one.

    Every method but :meth:`print_rank` and :meth:`device` is a collective: all ranks call it in the
    same order. With one rank each is the identity.

    Attributes:
        rank, size: which process this is, and of how many.
        parallel: ``"ddp"``: every rank holds the whole model; ``"fsdp"``: each a part of it;
            None: there is no process group, and the model stays as it is.
    """

    def __init__(self, rank: int = 0, size: int = 1, parallel: str | None = None) -> None:
        self.rank, self.size, self.parallel = rank, size, parallel

    @property
    def main(self) -> bool:
        """Whether this is the rank that prints, logs, and holds the run's lock."""
        return self.rank == 0

    def print_rank(self, text: str) -> None:
        """Print a line, with the rank in front unless it is the main one."""
        if self.main:
            console.print(text)
        else:
            print(f"rank {self.rank}: {text}", file=sys.stderr)

    def device(self, device: torch.device) -> torch.device:
        """This rank's device, the GPU of its local number; raises PwmError if it has none."""
        if self.parallel is None or device.type != "cuda":
            return device
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if device.index is not None or local >= gpus:
            raise PwmError(
                f"device={device} for rank {self.rank}, on a machine with {gpus} GPUs: every rank "
                f"needs a GPU of its own; give device=cuda and --nproc-per-node {gpus} at most."
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
        return chosen

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of all ranks' tensors of one shape, written into this rank's."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor /= self.size
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """All ranks' tensors of one shape, one after the other along the first dimension."""
        if self.size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor)
        return torch.cat(parts)

    def broadcast(self, tensor: Tensor) -> Tensor:
        """The main rank's tensor, written into this rank's, which has its shape."""
        if self.size > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def all_gather_object(self, value: Any) -> list[Any]:
        """Every rank's value, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def any_stop_signal(self, signum: int | None) -> int | None:
        """The signal that any of the ranks received, or None."""
        if self.size == 1:
            return signum
        flag = torch.tensor(signum or 0)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return int(flag) or None

    def raise_if_requested(self, signals: StopSignals, hint: str) -> None:
        """Stop all ranks if a signal came to one of them; call it after saving.

        The main rank raises Interrupted, the others exit silently.
        """
        signum = self.any_stop_signal(signals.requested)
        if signum is not None:
            if self.main:
                raise Interrupted(signum, hint)
            sys.exit(128 + signum)

    @contextmanager
    def raise_together(self) -> Iterator[None]:
        """A PwmError that is raised inside on one rank ends all of them.

        The main rank raises that of the first rank, the others exit silently.
        """
        if self.size == 1:
            yield
            return
        fault = None
        try:
            yield
        except PwmError as error:
            fault = f"rank {self.rank}: {error}" if self.rank else str(error)
        faults = [text for text in self.all_gather_object(fault) if text is not None]
        if faults and self.main:
            raise PwmError(faults[0])
        if faults:
            sys.exit(1)


@contextmanager
def join_ranks(config: Any) -> Iterator[Ranks]:
    """This process among those that torchrun started, as long as the context is open.

    With GPUs the ranks communicate through NCCL, else through gloo. An existing process group is
    used, and not destroyed.

    Args:
        config: settings with ``device`` and ``parallel``: ``auto`` is data parallel (``ddp``) where
            torchrun started several processes, and otherwise the plain model in a single one;
            ``ddp`` and ``fsdp`` need torchrun.

    Raises:
        PwmError: if torchrun is missing, or when another rank is lost; alone, also if ``parallel``
            is unknown.
    """
    parallel, device = config.parallel, config.device
    started = all(name in os.environ for name in _SET_BY_TORCHRUN)
    if not started:  # else all ranks check it, and raise together
        require_choice(config, "parallel", PARALLEL)
    if not started and parallel != "auto":
        raise PwmError(
            f"parallel={parallel} needs the processes that torchrun starts: "
            "`torchrun --nproc-per-node 8 -m pwm.cli pretrain ...`; or leave it out."
        )
    if not started or (parallel == "auto" and int(os.environ["WORLD_SIZE"]) == 1):
        yield Ranks()
        return
    with _process_group(device):
        chosen = "fsdp" if parallel == "fsdp" else "ddp"
        ranks = Ranks(dist.get_rank(), dist.get_world_size(), chosen)
        console.quiet = not ranks.main
        try:
            yield ranks
        except RuntimeError as error:
            if not any(word in str(error).lower() for word in _LOST):
                raise
            raise PwmError(
                f"rank {ranks.rank} on {socket.gethostname()} lost the others; the first to fail "
                "says why. What was saved is kept, and the same command goes on from there."
            ) from error
        finally:
            console.quiet = False


@contextmanager
def _process_group(device: str) -> Iterator[None]:
    if dist.is_initialized():
        yield
        return
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    store, rank, size = next(rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        # A restarted rank meets the others in the store of the ones before it, which left their
        # addresses there (pytorch issue 135712). Counts of restarts differ between machines.
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    yield
    dist.destroy_process_group()  # after an error it might wait for ranks that are gone
