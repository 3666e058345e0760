"""Networks as ONNX models, built operator by operator, so that a file has no more than it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pwm import __version__
from pwm.core.errors import PwmError
from pwm.deployment.network import Input, Layer, Network

OPSET, IR_VERSION = 21, 10  # what onnxruntime 1.20 and newer read
EPSILON = 1e-5  # of LayerNorm, torch's


def onnx_model(
    network: Network, facts: Mapping[str, str], dtype: type[np.floating[Any]] = np.float32
) -> bytes:
    """A network as the content of an ONNX file, with any number of rows.

    Args:
        network: what it computes.
        facts: its metadata.
        dtype: of inputs, constants and output.

    Raises:
        PwmError: if the package onnx is not installed.
    """
    try:
        import onnx
        from onnx import helper
    except ImportError as error:
        raise PwmError(
            "to=onnx needs the package onnx, which is not installed; pip install "
            "'pwm-worldmodels[onnx]', or deploy to=numpy or to=torch."
        ) from error
    graph = _Graph(dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    parts = [graph.normalized(given) for given in network.inputs]
    x = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=-1)
    for layer in network.layers:
        x = graph.layer(x, layer)
    _HEADS[network.head](graph, x, network)
    graph.nodes[-1].output[0] = network.name

    def shaped(name: str, size: int) -> Any:
        return helper.make_tensor_value_info(name, kind, ["batch", size])

    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "pwm",
            [shaped(given.name, given.size) for given in network.inputs],
            [shaped(network.name, network.outputs)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="pwm",
        producer_version=__version__,
    )
    helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class _Graph:
    """Nodes and constants under numbered names."""

    def __init__(self, dtype: type[np.floating[Any]]) -> None:
        self._dtype = dtype
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any, dtype: type | None = None) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        array = np.ascontiguousarray(values, dtype or self._dtype).reshape(np.shape(values))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def normalized(self, given: Input) -> str:
        x = given.name
        if given.period is not None:
            period = self.constant(given.period)
            turns = self.add("Div", x, self.constant(np.maximum(given.period, 1)))
            x = self.add("Sub", x, self.add("Mul", period, self.add("Round", turns)))
        if given.mean is not None:
            x = self.add("Sub", x, self.constant(given.mean))
        if given.scale is not None:
            x = self.add("Div", x, self.constant(given.scale))
        return x

    def layer(self, x: str, layer: Layer) -> str:
        x = self.add("Gemm", x, self.constant(layer.weight.T), self.constant(layer.bias))
        if layer.norm is None:
            return x
        scale, shift = map(self.constant, layer.norm)
        x = self.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=EPSILON)
        return self.simplices(x, layer.simplex) if layer.simplex else self.mish(x)

    def simplices(self, x: str, group: int) -> str:
        grouped = self.add("Reshape", x, self.constant([0, -1, group], np.int64))
        shares = self.add("Softmax", grouped, axis=-1)
        return self.add("Reshape", shares, self.constant([0, -1], np.int64))

    def mish(self, x: str) -> str:
        """As :func:`pwm.models.layers.mish` has it: one exponential, and quick operators."""
        two = self.constant(2.0)
        e = self.add("Exp", self.add("Min", x, self.constant(30.0)))
        n = self.add("Mul", self.add("Add", e, two), e)
        return self.add("Mul", x, self.add("Div", n, self.add("Add", n, two)))


def _action(graph: _Graph, x: str, network: Network) -> None:
    action = graph.add("Tanh", x)
    if network.bounds is not None:
        low, high = (bound.astype(np.float64) for bound in network.bounds)
        scaled = graph.add("Mul", action, graph.constant((high - low) / 2))
        moved = graph.add("Add", graph.constant((low + high) / 2), scaled)
        least = graph.add("Min", moved, graph.constant(high))
        graph.add("Max", least, graph.constant(low))


def _reward(graph: _Graph, x: str, network: Network) -> None:
    assert network.bins is not None
    shares = graph.add("Softmax", x, axis=-1)
    weighted = graph.add("Mul", shares, graph.constant(network.bins))
    symlog = graph.add("ReduceSum", weighted, graph.constant([-1], np.int64), keepdims=1)
    size = graph.add("Sub", graph.add("Exp", graph.add("Abs", symlog)), graph.constant(1.0))
    graph.add("Mul", graph.add("Sign", symlog), size)


def _continuation(graph: _Graph, x: str, network: Network) -> None:
    graph.add("Sigmoid", graph.add("Neg", x))


_HEADS: Mapping[str, Callable[[_Graph, str, Network], None]] = {
    "latent": lambda graph, x, network: None,
    "action": _action,
    "reward": _reward,
    "continuation": _continuation,
}


def open_onnx(path: Path) -> Callable[..., np.ndarray] | None:
    """What an ONNX file computes on one thread; None where onnxruntime is not installed."""
    return _session(str(path))


def onnx_in_float64(network: Network) -> Callable[..., np.ndarray] | None:
    """What the same graph computes in float64; None where onnxruntime is not installed."""
    return _session(onnx_model(network, {}, np.float64))


def _session(model: str | bytes) -> Callable[..., np.ndarray] | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(*inputs: np.ndarray) -> np.ndarray:
        (output,) = session.run(None, dict(zip(names, inputs, strict=True)))
        assert isinstance(output, np.ndarray)
        return output

    return run
