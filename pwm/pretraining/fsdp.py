"""A world model divided among ranks, from outside, by `torch.distributed.fsdp.fully_shard`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from pwm.models.world_model import WorldModel
from pwm.runtime.distributed import Ranks


def divide(loss: nn.Module, model: WorldModel, device: torch.device, ranks: Ranks) -> None:
    """Divide a model, and the loss that calls it, among all ranks; to be called by all of them.

    The weights are those that the main rank has. The others may come with the model on the meta
    device. On ``device`` no rank ever holds more than its part and one whole tensor.
    """
    whole = {name: tensor.detach() for name, tensor in _tensors(model)} if ranks.main else {}
    model.to("meta")
    shard(loss, model, init_device_mesh(device.type, (ranks.size,)))
    model.to_empty(device=device)
    for name, tensor in _tensors(model):
        _fill(tensor.detach(), whole.pop(name, None))


def shard(loss: nn.Module, model: WorldModel, mesh: DeviceMesh) -> None:
    """Shard every part that a loss calls once, and the dynamics as the rest of it.

    A part's weights are gathered before it is first called, and its gradients are scattered when
    its backward pass is done. The dynamics are called at every step of a horizon, and would be
    scattered as often. Every part stays gathered from the forward pass to the backward one, so
    that an update moves as many bytes as a data parallel one does. The prior is whole on every
    rank.
    """
    # Their warning is of operations in place on what a part returns, and there are none.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")
    kept: list[nn.Module] = [model.encoder, model.reward_head]
    embedding = [model.task_emb] if model.size.task_dim else []
    if model.has_q:
        kept.append(model.q_ensemble)
    ranks = mesh.size()

    def cut(parameter: nn.Parameter) -> Shard:
        return Shard(cut_dimension(parameter.shape, ranks))

    if model.has_q:  # the target has no backward pass
        fully_shard(model.q_target, mesh=mesh, reshard_after_forward=True, shard_placement_fn=cut)
    for part in (*embedding, *kept, loss):
        fully_shard(part, mesh=mesh, reshard_after_forward=False, shard_placement_fn=cut)
    for part in (*kept, loss):  # the embedding is never cast, and called at every step
        part.register_forward_pre_hook(_forget_casts)


def _forget_casts(*_: object) -> None:
    """Have autocast cast weights anew for a forward pass.

    The gradient of a cast that was made before it, as for the targets of the encoder, would reach
    the weight after the hook that scatters the gradients of that pass, and so never count.
    """
    torch.clear_autocast_cache()


def cut_dimension(shape: torch.Size, ranks: int) -> int:
    """The first dimension that gives all ranks as much, else the first, where parts are padded.

    A stack of 8 networks cut into 64 parts along the stack would be padded to eight times its size.
    """
    return next((i for i, length in enumerate(shape) if length % ranks == 0), 0)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _fill(tensor: Tensor, whole: Tensor | None) -> None:
    """Write into a tensor, divided or not, what the main rank alone gives."""
    if whole is None:
        whole = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    if isinstance(tensor, DTensor):
        mesh, placements = tensor.device_mesh, tensor.placements
        part = distribute_tensor(whole.to(tensor.device), mesh, placements, src_data_rank=0)
        tensor.to_local().copy_(part.to_local())
    else:
        tensor.copy_(whole)
        dist.broadcast(tensor, 0)
