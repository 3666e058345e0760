"""The library's networks as plain torch modules: an MLP a network, an ensemble under vmap.

As in the method's usual code: nothing is shared between networks, fused or folded.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from reference.pwm_minimal import mlp, simnorm
from torch import Tensor, nn

from pwm.models import world_model
from pwm.models.layers import StackedMLP


def plain_mlp(
    parameters: Iterable[Tensor], act: nn.Module | None = None, dropout: float = 0.0
) -> nn.Sequential:
    """An MLP of the reference with the weights of a library's, given in their order."""
    theirs = list(parameters)
    weights = [parameter for parameter in theirs if parameter.dim() == 2]
    net = mlp(weights[0].shape[1], *(len(weight) for weight in weights), act=act)
    if dropout:  # after the first linear map
        (linear, *norm_and_act), *rest = net
        net = nn.Sequential(nn.Sequential(linear, nn.Dropout(dropout), *norm_and_act), *rest)
    with torch.no_grad():
        for ours, given in zip(net.parameters(), theirs, strict=True):
            ours.copy_(given)
    return net.to(theirs[0].device)


class PlainEnsemble(nn.Module):
    """Networks of one shape that read the same input, their weights stacked, under vmap.

    Args:
        stacked: its weights are copied as they are now.
        dropout: probability after the first linear map.
    """

    def __init__(self, stacked: StackedMLP, dropout: float = 0.0) -> None:
        super().__init__()
        self.weights = nn.ParameterList(p.detach().clone() for p in stacked.parameters())
        member = plain_mlp((weight[0] for weight in self.weights), dropout=dropout).to("meta")
        self.names = [name for name, _ in member.named_parameters()]
        self.__dict__["member"] = member  # not a submodule: its weights are never used

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """(..., n) -> (members, ..., m); frozen weights get no gradients."""

        def call(weights: list[Tensor], x: Tensor) -> Tensor:
            named = dict(zip(self.names, weights, strict=True))
            return torch.func.functional_call(self.member, named, (x,))

        weights = [weight.detach() if frozen else weight for weight in self.weights]
        return torch.vmap(call, in_dims=(0, None), randomness="different")(weights, x)


class PlainWorldModel(nn.Module):
    """Encoder, dynamics and reward with a task embedding beside every observation and latent.

    Args:
        model: its networks are copied as they are now; it must not normalize observations.

    Attributes:
        task: ids, () or (B,), of what the other methods are given.
    """

    task: Tensor

    def __init__(self, model: world_model.WorldModel) -> None:
        super().__init__()
        act = simnorm(model.size.simnorm_dim)
        self.encoder = plain_mlp(model.encoder.parameters(), act)
        self.dynamics = plain_mlp(model.dynamics.parameters(), act)
        self.reward_head = plain_mlp(model.reward_head.parameters())
        self.embedding = nn.Embedding.from_pretrained(model.task_emb.weight.clone(), freeze=False)
        self.bins = model.bins

    def joint(self, x: Tensor, *rest: Tensor) -> Tensor:
        """What a network reads: (..., B, n) and task embeddings of norm at most one beside it."""
        embedding = self.embedding(self.task)
        embedding = embedding / embedding.norm(dim=-1, keepdim=True).clamp(min=1.0)
        return torch.cat([x, embedding.expand(*x.shape[:-1], -1), *rest], -1)

    def encode(self, o: Tensor) -> Tensor:
        """(..., B, obs) -> (..., B, latent)."""
        return self.encoder(self.joint(o))

    def next(self, z: Tensor, a: Tensor) -> Tensor:
        """(..., B, latent), (..., B, action) -> (..., B, latent)."""
        return self.dynamics(self.joint(z, a))

    def reward_logits(self, z: Tensor, a: Tensor) -> Tensor:
        """(..., B, latent), (..., B, action) -> (..., B, bins)."""
        return self.reward_head(self.joint(z, a))

    def expected(self, logits: Tensor) -> Tensor:
        """The mean bin under a categorical: (..., bins) -> (...)."""
        return (logits.softmax(-1) * self.bins).sum(-1)
