"""Puts an ONNX graph together: nodes, declared weights, and the three ways to multiply by a weight.

"plain" is a MatMul in the graph's own float type. "block" is MatMulNBits: int8 weights with a scale for each block of
inputs, activations quantised by row and block (accuracy level 4). "row" is an integer product with one scale for each
output and one for each row of activations. It knows no layers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx
from onnx import TensorProto, helper

from shammah_generator.architecture import Architecture
from shammah_generator.precision import BLOCK, PLANS, Plan, Precision

_CONTRIB = "com.microsoft"
_CONTRIB_KINDS = frozenset(
    {
        "GatherBlockQuantized",
        "GroupQueryAttention",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QuickGelu",
        "SkipSimplifiedLayerNormalization",
    }
)
_Attribute = int | float


@dataclass
class GraphBuilder:
    """Collects nodes and declares weights."""

    architecture: Architecture
    precision: Precision
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    _quantised: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """How this precision computes."""
        return PLANS[self.precision]

    @property
    def element(self) -> int:
        """The float type of activations and of the key/value buffers."""
        return int(TensorProto.FLOAT16 if self.plan.half else TensorProto.FLOAT)

    def finish(self, opset: int) -> onnx.ModelProto:
        """Return the model of what was collected."""
        graph = helper.make_graph(self.nodes, "llama", self.inputs, self.outputs, initializer=self.initializers)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(_CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def add(self, kind: str, inputs: list[str], output: str, **attributes: _Attribute) -> str:
        """Add a node with one output and return that output's name."""
        return self.add_many(kind, inputs, [output], **attributes)[0]

    def add_many(self, kind: str, inputs: list[str], outputs: list[str], **attributes: _Attribute) -> list[str]:
        """Add a node with several outputs ("" for one that nobody needs)."""
        domain = _CONTRIB if kind in _CONTRIB_KINDS else ""
        self.nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
        return outputs

    def rename(self, old: str, new: str) -> None:
        """Give the output of the node that was added last another name."""
        outputs = self.nodes[-1].output
        outputs[list(outputs).index(old)] = new

    def declare(self, name: str, shape: list[int], element: int = TensorProto.FLOAT) -> str:
        """Declare a weight that the session gets from outside."""
        tensor = TensorProto(name=name, data_type=element, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        # The location is never opened: the session options carry the value (add_external_initializers).
        tensor.external_data.add(key="location", value="weights")
        self.initializers.append(tensor)
        return name

    def add_constant(self, name: str, values: list[int]) -> str:
        """Add integers as an int64 vector."""
        self.initializers.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def add_linear(self, source: str, layer: str, kind: str, *, rows: int, columns: int) -> str:
        """Add `source @ W.T` for a weight of `rows` outputs and `columns` inputs; the plan says how."""
        name = f"{layer}.{kind}" if layer else kind
        scheme = self.plan.linears[kind]
        if scheme == "plain":
            weight = self.declare(f"{name}.transposed", [columns, rows], self.element)
            return self.add("MatMul", [source, weight], f"{name}.out")
        if scheme == "block":
            return self._add_block(source, name, rows=rows, columns=columns)
        return self._add_row(source, name, rows=rows, columns=columns)

    def _add_block(self, source: str, name: str, *, rows: int, columns: int) -> str:
        """Scales of activations are per row and block, so a row's result does not depend on its neighbours."""
        blocks = -(-columns // BLOCK)
        weights = [
            self.declare(f"{name}.quants", [rows, blocks, BLOCK], TensorProto.UINT8),
            self.declare(f"{name}.scales", [rows, blocks]),
        ]
        sizes = {"K": columns, "N": rows, "bits": 8, "block_size": BLOCK}
        return self.add("MatMulNBits", [source, *weights], f"{name}.out", accuracy_level=4, **sizes)

    def _add_row(self, source: str, name: str, *, rows: int, columns: int) -> str:
        integers, scale = self._quantise_rows(source)
        weights = [
            self.declare(f"{name}.quants", [columns, rows], TensorProto.INT8),
            self.declare(f"{name}.scales", [rows]),
        ]
        inputs = [integers, weights[0], "row.one", weights[1], "row.zero"]
        product = self.add("MatMulIntegerToFloat", inputs, f"{name}.units")
        return self.add("Mul", [product, scale], f"{name}.out")

    def _quantise_rows(self, source: str) -> tuple[str, str]:
        """Return `source` as uint8 around 128 and the scale of each of its rows; made once for each source."""
        made = self._quantised.get(source)
        if made is None:
            self._declare_row_constants()
            size = self.add("Abs", [source], f"{source}.size")
            peak = self.add("ReduceMax", [size, "row.axis"], f"{source}.peak", keepdims=1)
            scale = self.add("Mul", [peak, "row.step"], f"{source}.scale")
            # A row of zeros has scale 0; the least positive number keeps the quotient a number.
            safe = self.add("Max", [scale, "row.least"], f"{source}.safe")
            units = self.add("Div", [source, safe], f"{source}.in_units")
            integers = self.add("QuantizeLinear", [units, "row.one", "row.zero"], f"{source}.integers")
            made = self._quantised[source] = (integers, scale)
        return made

    def _declare_row_constants(self) -> None:
        if self._quantised:
            return
        self.add_constant("row.axis", [-1])
        for name, value in (("row.one", 1.0), ("row.step", 1 / 127), ("row.least", 1e-30)):
            self.initializers.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
        self.initializers.append(helper.make_tensor("row.zero", TensorProto.UINT8, [], [128]))
