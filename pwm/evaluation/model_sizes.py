"""Names for the sizes of world models in results."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from pwm.models.policy import Policy
from pwm.models.sizes import size_name
from pwm.models.world_model import ModelSize, WorldModel


def model_sizes(policies: Iterable[Policy], models: Iterable[WorldModel]) -> str | None:
    """The sizes of the world models that policies and planners have, such as ``48M``, or None."""
    sizes = {
        _millions(ModelSize(**a["model"]), a["obs_dim"], a["action_dim"])
        for policy in policies
        if (a := policy.architecture)["model"] is not None
    }
    for model in models:
        sizes.add(_millions(model.size, model.suite.obs_dim, model.suite.action_dim))
    return ", ".join(sorted(sizes)) or None


def _millions(size: ModelSize, obs_dim: int, action_dim: int) -> str:
    """A published size's name such as ``48M``, or its parameters in millions without Q ensemble."""
    name = size_name(size, has_q=False)
    if name != "custom":
        return name
    encoder = [obs_dim + size.task_dim, *[size.encoder_dim] * size.encoder_layers, size.latent_dim]
    joint = [size.latent_dim + size.task_dim + action_dim, size.mlp_dim, size.mlp_dim]
    nets = (encoder, [*joint, size.latent_dim], [*joint, size.num_bins])
    count = sum((i + 3) * o for net in nets for i, o in itertools.pairwise(net))
    return f"{count / 1e6:.1f}M"
