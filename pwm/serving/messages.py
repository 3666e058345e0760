"""What a client and the server say to each other, as msgpack."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np

from pwm.core.errors import PwmError


class Array(msgspec.Struct):
    """Float32 numbers: the sizes of the dimensions, and the values, little-endian, row by row."""

    shape: list[int]
    data: bytes

    @classmethod
    def of(cls, values: Any) -> Array:
        """Of anything that NumPy can make float32 of."""
        array = np.asarray(values, "<f4")
        return cls(list(array.shape), array.tobytes())

    def numpy(self) -> np.ndarray:
        """The array; raises ValueError if the values do not fill the shape."""
        return np.frombuffer(self.data, "<f4").reshape(self.shape).copy()


class Request(msgspec.Struct):
    """A question of a client; task and obs are for ``act``."""

    kind: Literal["act", "health", "reload"]
    task: str | None = None
    obs: Array | None = None


class Reply(msgspec.Struct, omit_defaults=True):
    """The answer: an action, facts for ``health`` and ``reload``, or what was wrong."""

    action: Array | None = None
    facts: dict[str, Any] | None = None
    error: str | None = None


def zeromq() -> Any:
    """The module zmq; raises PwmError if it is not installed."""
    try:
        import zmq
    except ImportError as error:
        raise PwmError(
            "serving needs the package pyzmq, which is not installed; pip install "
            "'pwm-worldmodels[serve]'."
        ) from error
    return zmq
