"""Networks computed with NumPy alone; this module's text is part of every file that is deployed."""

import base64

import numpy as np

Array = np.ndarray
Maybe = Array | None


class Network:
    """A function of one or two arrays, (size,) or (batch, size) each, of any real type."""

    def __init__(self, described: dict, arrays: list) -> None:
        self.name, self._dtype = described["name"], arrays[0].dtype
        self.inputs = [
            (given["name"], given["size"], _at(arrays, given["normalization"]))
            for given in described["inputs"]
        ]
        self._layers = [
            (_at(arrays, layer["arrays"]), layer["simplex"]) for layer in described["layers"]
        ]
        self._head, self._extra = described["head"], _at(arrays, described["extra"])

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        """The output, (size,) or (batch, size), float32 as the arrays are."""
        if len(inputs) != len(self.inputs):
            names = ", ".join(name for name, *_ in self.inputs)
            raise TypeError(f"{self.name} is a function of {names}")
        given = [np.asarray(each, self._dtype) for each in inputs]
        for each, (name, size, _) in zip(given, self.inputs, strict=True):
            if each.shape[-1:] != (size,):
                raise ValueError(f"{name} has {size} entries, got an array of shape {each.shape}")
        parts = [_normalized(x, *own) for x, (*_, own) in zip(given, self.inputs, strict=True)]
        x = parts[0] if len(parts) == 1 else np.concatenate(parts, -1)
        for arrays, simplex in self._layers:
            x = _layer(x, simplex, *arrays)
        return _HEADS[self._head](x, *self._extra)


def _at(arrays: list, numbers: list) -> list:
    return [None if number is None else arrays[number] for number in numbers]


def unpacked(text: str, shapes: list) -> list:
    """Arrays of these shapes from the base64 text of their float32 numbers."""
    numbers, arrays = np.frombuffer(base64.b64decode(text), "<f4"), []
    for shape in shapes:
        count = int(np.prod(shape))
        arrays.append(numbers[:count].reshape(shape).astype(np.float32))
        numbers = numbers[count:]
    return arrays


def _normalized(x: Array, period: Maybe, mean: Maybe, scale: Maybe) -> Array:
    if period is not None:
        x = x - period * np.round(x / np.maximum(period, 1))
    if mean is not None:
        x = x - mean
    return x if scale is None else x / scale


def _layer(
    x: Array, simplex: int, weight: Array, bias: Array, norm_scale: Maybe, norm_shift: Maybe
) -> Array:
    x = x @ weight.T + bias
    if norm_scale is None or norm_shift is None:
        return x
    share = 1 / len(bias)
    x = x - np.add.reduce(x, -1, keepdims=True) * share
    variance = np.add.reduce(x * x, -1, keepdims=True) * share
    x = x / np.sqrt(variance + 1e-5) * norm_scale + norm_shift
    if simplex:
        return _softmax(x.reshape(*x.shape[:-1], -1, simplex)).reshape(x.shape)
    e = np.exp(np.minimum(x, 30))
    n = (e + 2) * e
    return x * (n / (n + 2))


def _softmax(x: Array) -> Array:
    e = np.exp(x - np.maximum.reduce(x, -1, keepdims=True))
    return e / np.add.reduce(e, -1, keepdims=True)


def _action(x: Array, low: Maybe, high: Maybe) -> Array:
    x = np.tanh(x)
    if low is None or high is None:
        return x
    return np.clip((low + high) / 2 + x * ((high - low) / 2), low, high)


def _reward(x: Array, bins: Array) -> Array:
    symlog = (_softmax(x) @ bins)[..., None]
    return np.sign(symlog) * np.expm1(np.abs(symlog))


def _continuation(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(x))


_HEADS: dict = {
    "latent": lambda x: x,
    "action": _action,
    "reward": _reward,
    "continuation": _continuation,
}
