"""Inert stand-ins for other packages' classes that lie beside weights in a pickle.

A whole agent of PWM has running moments of observations, and agents of others have NumPy arrays and
OmegaConf's containers. A stand-in keeps what the pickle says of an object: nothing of the package
is imported or run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

MOMENTS = ".RunningMeanStd"
_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_ARRAYS = tuple(f"{module}._reconstruct" for module in _NUMPY_MODULES)
_SCALARS = tuple(f"{module}.scalar" for module in _NUMPY_MODULES)
_PLAIN = ("dict", "list", "tuple", "int", "float", "complex", "bool", "str", "bytes")
_INERT = {
    *_ARRAYS,
    *_SCALARS,
    "numpy.ndarray",
    "numpy.dtype",
    "typing.Any",
    "collections.defaultdict",
    *(f"builtins.{name}" for name in _PLAIN),
}
BYTES = "_codecs.encode"
"""By which a pickle of protocol 2 holds bytes; torch.load has its own for it."""


class Record:
    """What a pickle says of an object.

    Attributes:
        name: of the class or function that would have made it.
        arguments: that it would have been given.
        state: what the object would have been filled with.
    """

    name = ""
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        """Keep the state."""
        self.state = state


def is_inert(name: str) -> bool:
    """Whether a name that a pickle has gets a stand-in."""
    return name in _INERT or name.startswith("omegaconf.") or name.endswith(MOMENTS)


def stand_in(name: str) -> Any:
    """What takes the place of the class or function of a name."""
    if name == "collections.defaultdict":
        return _plain_dict
    return type("Record", (Record,), {"name": name})


def _plain_dict(*_: object) -> dict[Any, Any]:
    return {}


def numbers(value: Any) -> np.ndarray | None:
    """The numbers of a tensor, a plain number, or a stand-in for NumPy's; None for others."""
    if isinstance(value, Tensor) and not value.is_meta:
        return value.detach().double().numpy()
    if isinstance(value, int | float):
        return np.asarray(value, np.float64)
    try:
        if isinstance(value, Record) and value.name in _SCALARS:
            dtype, data = value.arguments
            return np.frombuffer(data, _dtype(dtype), 1).reshape(()).astype(np.float64)
        if isinstance(value, Record) and value.name in _ARRAYS:
            _, shape, dtype, fortran, data = value.state
            flat = np.frombuffer(data, _dtype(dtype))
            return flat.reshape(shape, order="F" if fortran else "C").astype(np.float64)
    except (TypeError, ValueError, AttributeError, LookupError):  # a forged state
        return None
    return None


def _dtype(record: Record) -> np.dtype[Any]:
    kind = record.arguments[0]
    if not isinstance(kind, str) or kind[:1] not in "biuf" or not kind[1:].isdigit():
        raise ValueError("no numbers")
    order = record.state[1] if record.state is not None else "="
    return np.dtype(f"{order if order in '<>' else '='}{kind}")


def running_moments(value: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and variance of a running normalization, None if a value is no such thing."""
    if isinstance(value, Record) and value.name.endswith(MOMENTS):
        value = value.state
    if not isinstance(value, dict):
        return None
    mean, var = numbers(value.get("mean")), numbers(value.get("var"))
    return None if mean is None or var is None else (mean, var)
