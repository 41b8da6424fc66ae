"""An exported encoder graph with int8 products: weights quantised at load, activations while it runs.

Each product by a weight becomes an integer product with one scale for each output of the weight and one for each row of
activations (`[B, S]` of them). So a text's result does not depend on the texts that it is batched with, which a
dynamic quantisation with one scale for the whole tensor can't say: thresholds are calibrated on batches and served one
query at a time. Heads on the pooled embedding (Gemm nodes) and the embedding tables stay float32.

Nothing is cached on disk: quantising MiniLM-L6 takes less time than its digest would.
It knows graphs and their external weights, no roles and no sessions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from shammah_chassis.errors import ArtifactError

_CONTRIB = "com.microsoft"
_LARGEST = 127
_ZERO_POINT = 128
_AXIS, _ONE, _STEP, _ZERO = "int8.axis", "int8.one", "int8.step", "int8.zero"


@dataclass(frozen=True, slots=True)
class Int8Graph:
    """A serialised model whose other weights still lie beside the original, and the bytes that it saves in memory."""

    model: bytes
    saved_bytes: int


def quantise_graph(path: Path) -> Int8Graph:
    """Replace each `MatMul` by a transposed weight in the graph file `path`.

    Raises:
        ArtifactError: graph or weights can't be read, or the graph has no such product.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (OSError, ValueError, DecodeError) as error:
        raise ArtifactError(f"{path} can't be read: {error}") from error
    weights = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) == 2}
    transposed = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Transpose" and node.input[0] in weights
    }
    builder = _Builder()
    nodes: list[onnx.NodeProto] = []
    replaced: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in transposed:
            name = transposed[node.input[1]]
            if name not in replaced:
                builder.add_weight(name, _read_weight(weights[name], path.parent))
                replaced.add(name)
            nodes.extend(builder.make_product(node.input[0], name, node.output[0]))
        else:
            nodes.append(node)
    if not replaced:
        raise ArtifactError(f"{path} has no product by a weight that could be quantised")
    _rebuild(model, nodes, builder.initializers)
    return Int8Graph(model.SerializeToString(), saved_bytes=3 * sum(_count(weights[name]) for name in replaced))


class _Builder:
    """Makes the nodes and constants of integer products."""

    def __init__(self) -> None:
        self.initializers = [
            helper.make_tensor(_AXIS, TensorProto.INT64, [1], [-1]),
            helper.make_tensor(_ONE, TensorProto.FLOAT, [], [1.0]),
            helper.make_tensor(_STEP, TensorProto.FLOAT, [], [1 / _LARGEST]),
            helper.make_tensor(_ZERO, TensorProto.UINT8, [], [_ZERO_POINT]),
        ]
        self._sources: set[str] = set()

    def add_weight(self, name: str, weight: npt.NDArray[np.float32]) -> None:
        """Quantise a weight `[rows, columns]`, symmetric, one scale a row; stored transposed."""
        peak = np.abs(weight).max(axis=1)
        inverse = np.divide(_LARGEST, peak, out=np.zeros_like(peak), where=peak > 0)
        quants = np.rint(weight * inverse[:, None]).astype(np.int8)
        # Twice divided: by the steps of the weight, and by those of the activations, which come as a share of the peak.
        scales = (peak / _LARGEST**2).astype(np.float32)
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(quants.T), f"{name}.quants"))
        self.initializers.append(numpy_helper.from_array(scales, f"{name}.scales"))

    def make_product(self, source: str, weight: str, output: str) -> Iterator[onnx.NodeProto]:
        """Yield the nodes of `output = source @ weight.T`; sources that several products share are quantised once."""
        peak, integers, units = (f"{source}.{kind}" for kind in ("peak", "integers", "units"))
        if source not in self._sources:
            self._sources.add(source)
            yield helper.make_node("Abs", [source], [f"{source}.size"])
            yield helper.make_node("ReduceMax", [f"{source}.size", _AXIS], [peak], keepdims=1)
            # A row of zeros becomes integers of no meaning here, and zero again when they are multiplied by its peak.
            yield helper.make_node("Div", [source, peak], [units])
            yield helper.make_node("QuantizeLinear", [units, _STEP, _ZERO], [integers])
        inputs = [integers, f"{weight}.quants", _ONE, f"{weight}.scales", _ZERO]
        yield helper.make_node("MatMulIntegerToFloat", inputs, [f"{output}.shares"], domain=_CONTRIB)
        yield helper.make_node("Mul", [f"{output}.shares", peak], [output])


def _rebuild(model: onnx.ModelProto, nodes: list[onnx.NodeProto], added: list[onnx.TensorProto]) -> None:
    """Put new nodes and weights into a model and leave out what nobody reads any more."""
    wanted = {output.name for output in model.graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(node.input)
    initializers = [tensor for tensor in (*model.graph.initializer, *added) if tensor.name in wanted]
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)
    # They name values that are gone.
    del model.graph.value_info[:]
    model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))


def _read_weight(tensor: onnx.TensorProto, folder: Path) -> npt.NDArray[np.float32]:
    try:
        array = numpy_helper.to_array(tensor, base_dir=str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ArtifactError(f"weight {tensor.name} can't be read: {error}") from error
    return np.asarray(array, dtype=np.float32)


def _count(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims))
