"""Networks as one Python file that needs nothing but NumPy."""

from __future__ import annotations

import base64
import json
import re
import textwrap
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from keyword import iskeyword
from pathlib import Path
from pprint import pformat
from types import ModuleType
from typing import Any

import numpy as np

from pwm import __version__
from pwm.deployment import numpy_runtime
from pwm.deployment.network import Layer, Network

_LINE = 100


def module_name(name: str) -> str:
    """A name that Python can import, such as ``walker_run``."""
    plain = re.sub(r"\W", "_", name)
    return f"_{plain}" if plain[0].isdigit() or iskeyword(plain) else plain


def numpy_source(networks: Mapping[str, Network], facts: Mapping[str, Any]) -> str:
    """The text of a Python module with a function per network.

    Args:
        networks: by the function's name.
        facts: metadata, in the module as ``METADATA``.
    """
    arrays = _Arrays()
    described = {name: _described(network, arrays) for name, network in networks.items()}
    numbers = np.concatenate([array.ravel() for array in arrays.kept]).astype("<f4")
    text = "\n".join(textwrap.wrap(base64.b64encode(numbers.tobytes()).decode(), _LINE))
    what = "policy" if "action" in networks else "world model"
    runtime = Path(numpy_runtime.__file__).read_text().split('"""\n', 1)[1]
    shown = {**facts, "functions": described, "shapes": [list(a.shape) for a in arrays.kept]}
    return "\n".join(
        [
            f'"""The {what} of {facts["task"]["name"]}, from `pwm deploy` of pwm {__version__}.',
            "",
            f"It needs NumPy alone. Functions: {', '.join(networks)}.",
            '"""',
            runtime,
            f"METADATA = {pformat(json.loads(json.dumps(shown)), width=_LINE, sort_dicts=False)}",
            "",
            f'_WEIGHTS = """\n{text}\n"""',
            "",
            '_arrays = unpacked(_WEIGHTS, METADATA["shapes"])',
            *(f'{name} = Network(METADATA["functions"]["{name}"], _arrays)' for name in networks),
            "",
        ]
    )


class _Arrays:
    """What the text has, one after the other."""

    def __init__(self, dtype: type[np.floating[Any]] = np.float32) -> None:
        self._dtype = dtype
        self.kept: list[np.ndarray] = []

    def number(self, array: np.ndarray | None) -> int | None:
        if array is None:
            return None
        self.kept.append(np.asarray(array, self._dtype))
        return len(self.kept) - 1


def _described(network: Network, arrays: _Arrays) -> dict[str, Any]:
    extra: tuple[np.ndarray | None, ...] = ()
    if network.head == "action":
        extra = network.bounds or (None, None)
    elif network.head == "reward":
        extra = (network.bins,)
    return {
        "name": network.name,
        "inputs": [
            {
                "name": given.name,
                "size": given.size,
                "normalization": [*map(arrays.number, (given.period, given.mean, given.scale))],
            }
            for given in network.inputs
        ],
        "layers": [_layer(layer, arrays) for layer in network.layers],
        "head": network.head,
        "extra": [*map(arrays.number, extra)],
    }


def _layer(layer: Layer, arrays: _Arrays) -> dict[str, Any]:
    parts = layer.weight, layer.bias, *(layer.norm or (None, None))
    return {"arrays": [*map(arrays.number, parts)], "simplex": layer.simplex}


def open_numpy(path: Path, function: str) -> Callable[..., np.ndarray]:
    """A function of a file that :func:`numpy_source` gave the text of."""
    run: Callable[..., np.ndarray] = getattr(_module(path), function)
    return run


def numpy_in_float64(path: Path, network: Network) -> Callable[..., np.ndarray]:
    """What a file's code computes in float64."""
    arrays = _Arrays(np.float64)
    run: Callable[..., np.ndarray] = _module(path).Network(_described(network, arrays), arrays.kept)
    return run


def _module(path: Path) -> ModuleType:
    spec = spec_from_file_location("deployed", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
