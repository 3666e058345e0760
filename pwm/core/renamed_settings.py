"""Settings that have other names than they once had, and the old names understood.

Commands, YAML files and the records of runs may use the old names; what they meant is found here,
and said in one line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from pwm.core.settings import block_types

T = TypeVar("T")

RENAMED: dict[str, dict[str, str]] = {
    "ActorCriticConfig": {
        "actor_lr": "optim.actor_lr",
        "critic_lr": "optim.critic_lr",
        "lr_final": "optim.lr_final",
        "betas": "optim.betas",
        "actor_clip": "optim.actor_grad_norm",
        "critic_clip": "optim.critic_grad_norm",
        "critic_passes": "critic.iterations",
        "critic_minibatches": "critic.batches",
        "scale_values": "critic.scale_values",
        "real_value_share": "critic.real_ratio",
        "real_value_steps": "critic.real_steps",
        "clone_weight": "bc.weight",
        "clone_weight_final": "bc.weight_final",
        "clone_first": "bc.warmup_steps",
        "clone_lr": "bc.lr",
        "clone_best": "bc.top_fraction",
        "clone_temperature": "bc.awr_temperature",
        "disagreement_weight": "ensemble.uncertainty_coef",
    },
    "EvaluateConfig": {"best": "bc_top_fraction"},
    "GrowConfig": {"clone_decay": "bc_decay", "fill": "stalled", "least": "min_episodes"},
    "PretrainConfig": {"init_moments": "init_normalization"},
}
"""By the config that they are in: old names, and the dotted names of today."""

Renames = list[tuple[str, str]]
"""Old and new dotted names."""

_SHOWN = 3  # renames that a line about a file names


def current_name(config: type, key: str) -> str:
    """The dotted name of today for one of any time, in a config of this type."""
    done: list[str] = []
    rest = key.split(".")
    kind: type | None = config
    while rest and kind is not None:
        if new := RENAMED.get(kind.__name__, {}).get(rest[0]):
            rest = [*new.split("."), *rest[1:]]
        kind = block_types(kind).get(rest[0])
        done.append(rest.pop(0))
    return ".".join([*done, *rest])


def with_current_names(config: type, values: Mapping[Any, Any]) -> tuple[dict[Any, Any], Renames]:
    """Settings of a config as plain data, nested, with the names of today.

    Returns:
        The settings, and which of them had old names; of a setting that is there under both names
        the one of today counts.
    """
    made: dict[Any, Any] = {}
    renames: Renames = []
    _rename(config, values, "", made, renames)
    return made, renames


def _rename(
    config: type, values: Mapping[Any, Any], prefix: str, made: dict[Any, Any], renames: Renames
) -> None:
    names = RENAMED.get(config.__name__, {})
    for name in sorted(values, key=lambda name: name not in names):  # old ones first
        value, path = values[name], [name]
        if name in names:
            path = names[name].split(".")
            renames.append((f"{prefix}{name}", f"{prefix}{names[name]}"))
        into, kind = made, config
        for block in path[:-1]:
            into, kind = into.setdefault(block, {}), block_types(kind)[block]
        inner = block_types(kind).get(path[-1])
        if inner is not None and isinstance(value, Mapping):
            within = f"{prefix}{'.'.join(path)}."
            _rename(inner, value, within, into.setdefault(path[-1], {}), renames)
        else:
            into[path[-1]] = value


def tell_renames(renames: Renames, where: str = "") -> None:
    """Say in one line on stderr which settings have new names, if any have.

    Args:
        renames: old and new names.
        where: that has the old names, a file or directory; the command by default.
    """
    if not renames:
        return
    shown = renames[:_SHOWN] if where else renames
    named = ", ".join(f"{old} is now {new}" for old, new in dict.fromkeys(shown))
    more = f", and {len(renames) - len(shown)} more" if len(shown) < len(renames) else ""
    place = f" in {where}" if where else ""
    print(f"pwm: {named}{more}{place}; the old names still work.", file=sys.stderr)


def refuse_old_names(config: type[T]) -> type[T]:
    """A class decorator: an argument with an old name is refused with the one of today."""
    make: Callable[..., None] = config.__init__

    @wraps(make)
    def init(self: Any, *arguments: Any, **named: Any) -> None:
        for old, new in RENAMED[config.__name__].items():
            if old in named:
                raise TypeError(f"{config.__name__} has no '{old}'; it is {new} now")
        make(self, *arguments, **named)

    config.__init__ = init  # type: ignore[method-assign]
    return config
