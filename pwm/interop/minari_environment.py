"""What a Minari dataset says of the environment it was recorded in, beside the task's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.suites import Task

if TYPE_CHECKING:
    from gymnasium import spaces

_FLATTENS = "FlattenObservation"  # Gymnasium's wrapper, as the task's environment has it too


def as_declared(space: spaces.Space[Any], text: str) -> spaces.Space[Any]:
    """A space with its dictionaries' entries in the order of the metadata's text.

    That is the order in which the environment declared them; Minari sorts them when it reads.
    """
    return _in_order(space, json.loads(text))


def _in_order(space: spaces.Space[Any], described: Mapping[str, Any]) -> spaces.Space[Any]:
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        parts = described["subspaces"]
        return spaces.Dict([(key, _in_order(space[key], parts[key])) for key in parts])
    if isinstance(space, spaces.Tuple):
        pairs = zip(space.spaces, described["subspaces"], strict=True)
        return spaces.Tuple([_in_order(*pair) for pair in pairs])
    return space


def in_order_of(space: spaces.Space[Any], other: spaces.Space[Any]) -> spaces.Space[Any]:
    """A space with its dictionaries' entries in the order of a space that has the same ones."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict) and isinstance(other, spaces.Dict):
        return spaces.Dict([(key, in_order_of(space[key], part)) for key, part in other.items()])
    if isinstance(space, spaces.Tuple) and isinstance(other, spaces.Tuple):
        return spaces.Tuple(list(map(in_order_of, space.spaces, other.spaces)))
    return space


def order_of(space: spaces.Space[Any], prefix: str = "") -> list[str]:
    """The dotted names of a space's parts, in the order in which they are flattened."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        named = space.spaces.items()
    elif isinstance(space, spaces.Tuple):
        named = {str(i): part for i, part in enumerate(space.spaces)}.items()
    else:
        return [prefix.rstrip(".")]
    return [name for key, part in named for name in order_of(part, f"{prefix}{key}.")]


def recorded_spec(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """How the dataset's environment was made, as its metadata say; empty where they do not."""
    try:
        spec = json.loads(metadata.get("env_spec") or "{}")
    except ValueError:
        return {}
    return spec if isinstance(spec, dict) else {}


def wrapper_names(spec: Mapping[str, Any]) -> list[str]:
    """The wrappers that were added to the dataset's environment, the innermost first."""
    return [str(one.get("name")) for one in spec.get("additional_wrappers") or ()]


def require_same_entries(
    name: str, space: spaces.Space[Any], own: spaces.Space[Any], task: Task
) -> None:
    """Raise PwmError if an environment's observations have other entries than a dataset's."""
    ours, theirs = order_of(own), order_of(space)
    if type(own) is type(space) and set(ours) != set(theirs):
        raise PwmError(
            f"{name} has observations of {', '.join(theirs)}, and {task.env_id} of "
            f"{', '.join(ours)}; give the environment that the data are of."
        )


def differences(
    task: Task,
    spec: Mapping[str, Any],
    made_with: Mapping[str, Any],
    space: spaces.Space[Any],
    own: spaces.Space[Any],
) -> Iterator[str]:
    """Every difference of a dataset's environment and the task's, a clause each.

    Args:
        task: the task, whose environment this compares with.
        spec: what :func:`recorded_spec` gives.
        made_with: the arguments of the task's environment, defaults included.
        space: the observations of the dataset.
        own: the observations of the task's environment.
    """
    if not spec:
        yield "the dataset does not say how its environment was made"
    elif (env_id := spec.get("id")) != task.env_id.rpartition(":")[2]:
        yield f"the data are of {env_id}"
    given, made_with = _plain(spec.get("kwargs") or {}), _plain(made_with)
    for key in sorted({*given, *made_with}) if spec else ():
        if given.get(key) != made_with.get(key) and key != "render_mode":
            yield f"{key} was {given.get(key)!r} and is {made_with.get(key)!r}"
    added = [name for name in wrapper_names(spec) if name != _FLATTENS]
    if added:
        yield f"the data were recorded through {', '.join(added)}, which it does not have"
    limit = spec.get("max_episode_steps")
    if limit not in (None, -1, task.episode_length):
        yield f"episodes were limited to {limit} steps and are to {task.episode_length}"
    if type(own) is not type(space):
        if _FLATTENS not in wrapper_names(spec):
            yield f"observations were {_short(space)} and are {_short(own)}"
        return
    yield from _space_differences(space, own, "observations")


def _space_differences(
    space: spaces.Space[Any], own: spaces.Space[Any], name: str
) -> Iterator[str]:
    from gymnasium import spaces

    if isinstance(space, spaces.Dict) and isinstance(own, spaces.Dict):
        for key, part in own.items():
            yield from _space_differences(space[key], part, f"observation {key}")
    elif isinstance(space, spaces.Tuple) and isinstance(own, spaces.Tuple):
        for i, pair in enumerate(zip(space.spaces, own.spaces, strict=True)):
            yield from _space_differences(*pair, f"observation {i}")
    elif isinstance(space, spaces.Box) and isinstance(own, spaces.Box):
        if space.shape != own.shape:
            yield f"{name} had shape {space.shape} and has {own.shape}"
        elif not (np.allclose(space.low, own.low) and np.allclose(space.high, own.high)):
            yield f"the bounds of {name} were {_short(space)} and are {_short(own)}"


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as JSON holds them."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(arguments), default=str))
    return plain


def _short(space: spaces.Space[Any]) -> str:
    return " ".join(str(space).split())[:120]
