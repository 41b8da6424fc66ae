"""The graph of a decoder in our own CPU operators: an embedding, a node for each layer, a readout.

Inputs: `input_ids` int64 `[B, S]`, `seqlens_k` int32 `[B]` (total length - 1 of each row), `first_slot` int32 scalar,
`weights` uint8 `[bytes]` (all packed weights: an initializer would be copied out of its large pages) and `cache`
float16 `[2 * layers, slots, kv_heads, context, head_dim]`, keys and values of a layer after each other, which is
written to: B rows from the first slot on. Outputs: those of `readout`. Inputs are few and large, since each costs time
in every step. Built when a version is loaded, in milliseconds; version folders hold the graphs of ONNX Runtime's
operators only, which every machine can run. It knows names and shapes; what the operators compute is said in
`services/generator/native`.
"""

from __future__ import annotations

import itertools

import onnx
from onnx import TensorProto, helper
from shammah_chassis.errors import InvalidInputError

from shammah_generator.architecture import Architecture
from shammah_generator.packing import count_packed, lay_out, stores_head
from shammah_generator.precision import PLANS, Precision

DOMAIN = "shammah"
_HEAD_VECTORS = frozenset({1, 2, 3, 4, 5, 6, 8})
_LINEARS = ("qkv", "attention", "gate", "up", "down")
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
        self._precision = precision
        self._plan = PLANS[precision]
        self._places = lay_out(architecture, precision)
        self._every = every_position
        self._team = {"team": next(_teams), "threads": threads, "epsilon": architecture.rms_eps}
        self._nodes: list[onnx.NodeProto] = []
        self._gains: list[onnx.TensorProto] = []

    def build(self) -> onnx.ModelProto:
        a = self._a
        for name in ("cos", "sin"):
            self._declare(name, [a.max_positions, a.head_dim // 2])
        place = self._places["embedding"].at
        self._add("Embedding", ["input_ids", "weights"], ["hidden"], hidden=a.hidden, vocab=a.vocab, at=place)
        stream = "hidden"
        for layer in range(a.layers):
            stream = self._add_layer(layer, stream)
        outputs = self._add_readout(stream)
        declare = helper.make_tensor_value_info
        inputs = [
            declare("input_ids", TensorProto.INT64, ["B", "S"]),
            declare("seqlens_k", TensorProto.INT32, ["B"]),
            declare("first_slot", TensorProto.INT32, []),
            declare("weights", TensorProto.UINT8, [count_packed(a, self._precision)]),
            declare("cache", TensorProto.FLOAT16, [2 * a.layers, "slots", a.kv_heads, "L", a.head_dim]),
        ]
        graph = helper.make_graph(self._nodes, "llama", inputs, outputs, initializer=self._gains)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _add_layer(self, layer: int, stream: str) -> str:
        a, name = self._a, f"layers.{layer}"
        schemes = {self._plan.linears[kind] for kind in _LINEARS}
        if len(schemes) > 1:
            raise InvalidInputError(f"schemes {sorted(schemes)} in one layer; allowed: one")
        gains = [self._declare(f"{name}.{kind}", [a.hidden]) for kind in ("norm", "mlp.norm")]
        inputs = [stream, "seqlens_k", "first_slot", "cos", "sin", *gains, "weights", "cache"]
        attributes = {kind: self._places[f"{name}.{kind}"].at for kind in _LINEARS}
        attributes |= {"heads": a.heads, "kv_heads": a.kv_heads, "head_dim": a.head_dim, "layer": layer}
        attributes |= {"intermediate": a.intermediate, "whole": int("row" in schemes)}
        self._add("DecoderLayer", inputs, [f"{name}.out"], **attributes, **self._team)
        return f"{name}.out"

    def _add_readout(self, stream: str) -> list[onnx.ValueInfoProto]:
        gain = self._declare("final.norm", [self._a.hidden])
        row = "positions" if self._every else "B"
        outputs = {
            "logits": (TensorProto.FLOAT, [row, self._a.vocab]),
            "top_ids": (TensorProto.INT64, [row, 2]),
            "top_values": (TensorProto.FLOAT, [row, 2]),
            "log_total": (TensorProto.FLOAT, [row]),
            "entropy": (TensorProto.FLOAT, [row]),
        }
        stored = stores_head(self._a, self._plan)
        attributes = {
            "vocab": self._a.vocab,
            "every_position": int(self._every),
            "at": self._places["head" if stored else "embedding"].at,
            "whole": int(stored and self._plan.linears["head"] == "row"),
        }
        self._add("Readout", [stream, gain, "weights"], list(outputs), **attributes, **self._team)
        return [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()]

    def _declare(self, name: str, shape: list[int]) -> str:
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        # Never opened: the session options carry the value (add_external_initializers).
        tensor.external_data.add(key="location", value="weights")
        self._gains.append(tensor)
        return name

    def _add(self, kind: str, inputs: list[str], outputs: list[str], **attributes: float) -> None:
        self._nodes.append(helper.make_node(kind, inputs, outputs, domain=DOMAIN, **attributes))
