"""The decoder with its own loop in operators of our own (`native/cuda_ops.cu`): five kernels a layer instead of twelve.

Inputs and outputs are those of `cuda_graph`, but there is no `total_sequence_length`. Weights lie as Hugging Face has
them, `[outputs, inputs]`: a warp makes one result of one row of the weight. The same graph takes prompts, of one row at
a time or several. It knows no sessions and no memory.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from shammah_generator.architecture import Architecture
from shammah_generator.arrays import Array
from shammah_generator.cuda_graph import RING_WIDTH
from shammah_generator.graph import OPSET
from shammah_generator.linears import GraphBuilder

DOMAIN = "shammah"
FEW = 4
"""Rows for which a product is one of our kernels; for more, cuBLAS reads the weights once for all of them."""
_HALF = TensorProto.FLOAT16
_LARGEST_HEAD = 256


def can_fuse(architecture: Architecture) -> bool:
    """Tell whether the operators take these sizes: they read eight elements at a time."""
    a = architecture
    return not (a.hidden % 8 or a.intermediate % 8 or a.head_dim % 8) and a.head_dim <= _LARGEST_HEAD


def lay_out_rows(weights: Mapping[str, Array], architecture: Architecture) -> dict[str, Array]:
    """Return the weights of the fp16 graph as this graph takes them: products by rows, gates and ups as one."""
    laid = {name: array for name, array in weights.items() if not name.endswith(".transposed")}
    for i in range(architecture.layers):
        layer = f"layers.{i}"
        for kind in ("qkv", "attention", "down"):
            laid[f"{layer}.{kind}.rows"] = np.ascontiguousarray(weights[f"{layer}.{kind}.transposed"].T)
        gates = [weights[f"{layer}.{kind}.transposed"].T for kind in ("gate", "up")]
        laid[f"{layer}.gates.rows"] = np.ascontiguousarray(np.concatenate(gates))
    return laid


def build_fused_graph(architecture: Architecture, *, steps: int, few: int = FEW, early: bool = True) -> onnx.ModelProto:
    """Build the template.

    Args:
        architecture: one that `can_fuse` takes.
        steps: length of the ring.
        few: rows up to which a product is a kernel of ours, 0 to 8.
        early: whether a kernel may load its weights while the one before it still runs.
    """
    return _Fused(architecture, steps, few, early).build()


class _Fused:
    def __init__(self, architecture: Architecture, steps: int, few: int, early: bool) -> None:
        self._a = architecture
        self._builder = GraphBuilder(architecture, "fp16")
        self._steps = steps
        self._early = {"early": int(early)}
        self._product = {"few": few, **self._early}
        self._norm = {"epsilon": architecture.rms_eps, **self._product}

    def build(self) -> onnx.ModelProto:
        a, builder = self._a, self._builder
        self._declare()
        table = builder.declare("embedding", [a.vocab, a.hidden], _HALF)
        stream = builder.add("Gather", [table, "input_ids"], "embedded", axis=0)
        for i in range(a.layers):
            stream = self._add_layer(i, stream)
        head = table if a.tied else builder.declare("head", [a.vocab, a.hidden], _HALF)
        self._add("NormHead", [stream, self._declare_gain("final.norm"), head], ["logits", "head.normed"], self._norm)
        outputs = ["next_ids", "next_seqlens", "next_ring", "extracts"]
        self._add("ReadLogits", ["logits", "seqlens_k", "ring"], outputs, self._early)
        model = builder.finish(OPSET)
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        return model

    def _declare(self) -> None:
        a, builder, declare = self._a, self._builder, helper.make_tensor_value_info
        ring = [self._steps, "B", RING_WIDTH]
        builder.inputs += [
            declare("input_ids", TensorProto.INT64, ["B", "S"]),
            declare("seqlens_k", TensorProto.INT32, ["B"]),
            declare("ring", TensorProto.FLOAT, ring),
        ]
        builder.outputs += [
            declare("logits", TensorProto.FLOAT, ["B", a.vocab]),
            declare("next_ids", TensorProto.INT64, ["B", 1]),
            declare("next_seqlens", TensorProto.INT32, ["B"]),
            declare("next_ring", TensorProto.FLOAT, ring),
        ]
        for name in ("cos", "sin"):
            builder.declare(name, [a.max_positions, a.head_dim // 2], _HALF)
        for i in range(a.layers):
            for kind in ("key", "value"):
                shape = ["B", a.kv_heads, "L", a.head_dim]
                builder.inputs.append(declare(f"past.{i}.{kind}", _HALF, shape))
                builder.outputs.append(declare(f"present.{i}.{kind}", _HALF, shape))

    def _add_layer(self, i: int, stream: str) -> str:
        a, layer = self._a, f"layers.{i}"
        packed, mixed, middle, gated, end = (
            f"{layer}.{name}" for name in ("packed", "mixed", "middle", "gated", "end")
        )
        qkv = self._declare_rows(f"{layer}.qkv", a.query_width + 2 * a.kv_width, a.hidden)
        gain = self._declare_gain(f"{layer}.norm")
        self._add("NormLinear", [stream, gain, qkv], [packed, f"{packed}.normed"], self._norm)
        inputs = [packed, "seqlens_k", "cos", "sin", f"past.{i}.key", f"past.{i}.value"]
        outputs = [mixed, f"present.{i}.key", f"present.{i}.value"]
        self._add("DecodeAttention", inputs, outputs, {"heads": a.heads, **self._early})
        mixer = self._declare_rows(f"{layer}.attention", a.hidden, a.query_width)
        self._add("AddLinear", [mixed, mixer, stream], [middle], self._product)
        gates = self._declare_rows(f"{layer}.gates", 2 * a.intermediate, a.hidden)
        gain = self._declare_gain(f"{layer}.mlp.norm")
        self._add("NormSwiglu", [middle, gain, gates], [gated, f"{gated}.normed", f"{gated}.both"], self._norm)
        down = self._declare_rows(f"{layer}.down", a.hidden, a.intermediate)
        self._add("AddLinear", [gated, down, middle], [end], self._product)
        return end

    def _declare_rows(self, name: str, rows: int, columns: int) -> str:
        return self._builder.declare(f"{name}.rows", [rows, columns], _HALF)

    def _declare_gain(self, name: str) -> str:
        return self._builder.declare(name, [self._a.hidden], _HALF)

    def _add(self, kind: str, inputs: list[str], outputs: list[str], attributes: Mapping[str, int | float]) -> None:
        self._builder.nodes.append(helper.make_node(kind, inputs, outputs, domain=DOMAIN, **attributes))
