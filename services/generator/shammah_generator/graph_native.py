"""The graph of a decoder in our own CPU operators: an embedding, a node for each layer, a readout.

Inputs and outputs are those of `graph`, but keys and values are float16 and packed weights are inputs too. Built when a
version is loaded, in milliseconds; version folders hold the graphs of ONNX Runtime's operators only, which every
machine can run. It knows names and shapes; what the operators compute is said in `services/generator/native`.
"""

from __future__ import annotations

import itertools

import onnx
from onnx import TensorProto, helper

from shammah_generator.architecture import Architecture
from shammah_generator.packing import find_shape
from shammah_generator.precision import PLANS, Precision, Scheme

DOMAIN = "shammah"
_HEAD_VECTORS = frozenset({1, 2, 3, 4, 5, 6, 8})
_OPSET = 21
_teams = itertools.count()


def can_serve(architecture: Architecture, precision: Precision) -> bool:
    """Tell whether the operators compute this precision, with heads of this size."""
    return PLANS[precision].quantised and architecture.head_dim // 16 in _HEAD_VECTORS


def build_native_graph(
    architecture: Architecture, *, precision: Precision, threads: int, every_position: bool = False
) -> onnx.ModelProto:
    """Build the graph; each has a team of `threads` threads of its own."""
    return _Builder(architecture, precision, threads, every_position).build()


class _Builder:
    def __init__(self, architecture: Architecture, precision: Precision, threads: int, every_position: bool) -> None:
        self._a = architecture
        self._plan = PLANS[precision]
        self._every = every_position
        self._team = {"team": next(_teams), "threads": threads, "epsilon": architecture.rms_eps}
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        declare = helper.make_tensor_value_info
        self._inputs = [
            declare("input_ids", TensorProto.INT64, ["B", "S"]),
            declare("seqlens_k", TensorProto.INT32, ["B"]),
            declare("total_sequence_length", TensorProto.INT32, []),
        ]
        self._outputs: list[onnx.ValueInfoProto] = []

    def build(self) -> onnx.ModelProto:
        a = self._a
        table = self._declare_packed("embedding", "block", a.vocab, a.hidden)
        for name in ("cos", "sin"):
            self._declare(name, [a.max_positions, a.head_dim // 2], TensorProto.FLOAT)
        self._add("Embedding", ["input_ids", table], ["hidden"], hidden=a.hidden)
        stream = "hidden"
        for layer in range(a.layers):
            stream = self._add_layer(layer, stream)
        scheme = self._plan.linears["head"]
        # Tied weights are one, unless they are stored in two ways (see weights).
        one = a.tied and not self._plan.rotated and scheme == "block"
        self._add_readout(stream, table if one else self._declare_packed("head", scheme, a.vocab, a.hidden))
        graph = helper.make_graph(self._nodes, "llama", self._inputs, self._outputs, initializer=self._weights)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _add_layer(self, layer: int, stream: str) -> str:
        a, name = self._a, f"layers.{layer}"
        widths = {
            "qkv": (a.query_width + 2 * a.kv_width, a.hidden),
            "attention": (a.hidden, a.query_width),
            "gate": (a.intermediate, a.hidden),
            "up": (a.intermediate, a.hidden),
            "down": (a.hidden, a.intermediate),
        }
        packed = {
            kind: self._declare_packed(f"{name}.{kind}", self._plan.linears[kind], *sizes)
            for kind, sizes in widths.items()
        }
        gains = [self._declare(f"{name}.{kind}", [a.hidden], TensorProto.FLOAT) for kind in ("norm", "mlp.norm")]
        caches = [f"{layer}.{kind}" for kind in ("key", "value")]
        for cache in caches:
            shape = ["B", a.kv_heads, "L", a.head_dim]
            self._inputs.append(helper.make_tensor_value_info(f"past.{cache}", TensorProto.FLOAT16, shape))
            self._outputs.append(helper.make_tensor_value_info(f"present.{cache}", TensorProto.FLOAT16, shape))
        inputs = [stream, "seqlens_k", "cos", "sin", gains[0], packed["qkv"], packed["attention"], gains[1]]
        inputs += [packed["gate"], packed["up"], packed["down"], *(f"past.{cache}" for cache in caches)]
        made = f"{name}.out"
        outputs = [made, *(f"present.{cache}" for cache in caches)]
        sizes = {"heads": a.heads, "kv_heads": a.kv_heads, "head_dim": a.head_dim}
        self._add("DecoderLayer", inputs, outputs, **sizes, **self._team)
        return made

    def _add_readout(self, stream: str, head: str) -> None:
        gain = self._declare("final.norm", [self._a.hidden], TensorProto.FLOAT)
        row = "positions" if self._every else "B"
        outputs = {
            "logits": (TensorProto.FLOAT, [row, self._a.vocab]),
            "top_ids": (TensorProto.INT64, [row, 2]),
            "top_values": (TensorProto.FLOAT, [row, 2]),
            "log_total": (TensorProto.FLOAT, [row]),
            "entropy": (TensorProto.FLOAT, [row]),
        }
        attributes = {"vocab": self._a.vocab, "every_position": int(self._every)}
        self._add("Readout", [stream, gain, head], list(outputs), **attributes, **self._team)
        self._outputs[:0] = [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()]

    def _declare_packed(self, name: str, scheme: Scheme, rows: int, columns: int) -> str:
        # An input, not an initializer: ONNX Runtime would copy it out of its large pages.
        shape = find_shape(rows, columns, scheme)
        self._inputs.append(helper.make_tensor_value_info(f"{name}.packed", TensorProto.UINT8, shape))
        return f"{name}.packed"

    def _declare(self, name: str, shape: list[int], element: int) -> str:
        tensor = TensorProto(name=name, data_type=element, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights")
        self._weights.append(tensor)
        return name

    def _add(self, kind: str, inputs: list[str], outputs: list[str], **attributes: float) -> None:
        self._nodes.append(helper.make_node(kind, inputs, outputs, domain=DOMAIN, **attributes))
