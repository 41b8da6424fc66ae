"""The ONNX template of a Llama-family decoder: nodes and names, no weights.

Built from the architecture in milliseconds. Every weight is an external initializer that `weights` provides by name, so
one graph serves every version of an architecture. It knows nothing of files with weights, sessions or tokens.

Inputs: `input_ids` int64 `[B, S]`, `seqlens_k` int32 `[B]` (total length - 1 of each row), `total_sequence_length`
int32 scalar (longest row), `past.<i>.key|value` float32 `[B, kv_heads, context, head_dim]`. Outputs: `logits` float32
`[B, vocab]` for the last position (`[B * S, vocab]` with `every_position`) and `present.<i>.key|value`, which must be
bound to the very memory of `past`. Operators: ONNX Runtime's contrib GroupQueryAttention, MatMulNBits and
(Skip)SimplifiedLayerNormalization (github.com/microsoft/onnxruntime, docs/ContribOperators.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import TensorProto, helper

from shammah_generator.architecture import Architecture

Precision = Literal["fp32", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
BLOCK = 32
"""Elements of a row that share one int8 scale; 32 gave KL 0.004 to fp32, 128 gave 0.012."""
OPSET = 21
_CONTRIB = "com.microsoft"
_CONTRIB_KINDS = frozenset(
    {
        "GatherBlockQuantized",
        "GroupQueryAttention",
        "MatMulNBits",
        "QuickGelu",
        "SkipSimplifiedLayerNormalization",
    }
)
_Attribute = int | float


def name_graph_file(precision: Precision) -> str:
    """Return the file name of a template inside a version folder."""
    return f"graph.{precision}.onnx"


def write_graphs(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the template of every precision for a Hugging Face config into `folder`."""
    architecture = Architecture.from_config(config)
    for precision in PRECISIONS:
        data = build_graph(architecture, precision=precision).SerializeToString()
        (folder / name_graph_file(precision)).write_bytes(data)


def build_graph(architecture: Architecture, *, precision: Precision, every_position: bool = False) -> onnx.ModelProto:
    """Build the template; `every_position` makes the variant whose logits cover all positions (parity checks)."""
    builder = _Builder(architecture, precision)
    normed = _add_layers(builder)
    _add_head(builder, normed, every_position=every_position)
    graph = helper.make_graph(
        builder.nodes,
        "llama",
        builder.inputs,
        builder.outputs,
        initializer=builder.initializers,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_CONTRIB, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@dataclass
class _Builder:
    """Collects nodes and declares weights."""

    architecture: Architecture
    precision: Precision
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, kind: str, inputs: list[str], output: str, **attributes: _Attribute) -> str:
        """Add a node with one output and return that output's name."""
        return self.add_many(kind, inputs, [output], **attributes)[0]

    def add_many(self, kind: str, inputs: list[str], outputs: list[str], **attributes: _Attribute) -> list[str]:
        """Add a node with several outputs ("" for one that nobody needs)."""
        domain = _CONTRIB if kind in _CONTRIB_KINDS else ""
        self.nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
        return outputs

    def declare(self, name: str, shape: list[int], element: int = TensorProto.FLOAT) -> str:
        """Declare a weight that the session gets from outside."""
        tensor = TensorProto(name=name, data_type=element, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        # The location is never opened: the session options carry the value (add_external_initializers).
        tensor.external_data.add(key="location", value="weights")
        self.initializers.append(tensor)
        return name

    def add_constant(self, name: str, values: list[int]) -> str:
        self.initializers.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def add_linear(self, source: str, name: str, *, rows: int, columns: int) -> str:
        """Add `source @ W.T` for a weight of `rows` outputs and `columns` inputs."""
        output = f"{name}.out"
        if self.precision == "fp32":
            weight = self.declare(f"{name}.transposed", [columns, rows])
            return self.add("MatMul", [source, weight], output)
        return self.add_int8(source, name, output, rows=rows, columns=columns)

    def add_int8(self, source: str, name: str, output: str, *, rows: int, columns: int) -> str:
        """Add the product with int8 weights; activations are quantised a block at a time (accuracy level 4).

        Scales of activations are per row and block, so a row's result does not depend on its neighbours.
        """
        blocks = -(-columns // BLOCK)
        weights = [
            self.declare(f"{name}.quants", [rows, blocks, BLOCK], TensorProto.UINT8),
            self.declare(f"{name}.scales", [rows, blocks]),
        ]
        return self.add(
            "MatMulNBits",
            [source, *weights],
            output,
            K=columns,
            N=rows,
            bits=8,
            block_size=BLOCK,
            accuracy_level=4,
        )


def _add_layers(builder: _Builder) -> str:
    """Add embedding and all layers; returns the normalised hidden states `[B, S, hidden]`."""
    a = builder.architecture
    _declare_inputs(builder)
    residual = _add_embedding(builder)
    gains = [name for i in range(a.layers) for name in (f"layers.{i}.norm", f"layers.{i}.mlp.norm")]
    gains = [builder.declare(name, [a.hidden]) for name in (*gains, "final.norm")]
    normed = builder.add(
        "SimplifiedLayerNormalization",
        [residual, gains[0]],
        "layers.0.normed",
        axis=-1,
        epsilon=a.rms_eps,
        stash_type=1,
    )
    for i in range(a.layers):
        branch = _add_attention(builder, i, normed)
        normed, residual = _add_skip_norm(builder, branch, residual, gains[2 * i + 1])
        branch = _add_mlp(builder, i, normed)
        normed, residual = _add_skip_norm(builder, branch, residual, gains[2 * i + 2])
    return normed


def _add_embedding(builder: _Builder) -> str:
    a = builder.architecture
    if builder.precision == "fp32":
        table = builder.declare("embedding", [a.vocab, a.hidden])
        return builder.add("Gather", [table, "input_ids"], "embedded", axis=0)
    # The same bytes as the tied head's, only declared with two dimensions as this operator wants them.
    quants = builder.declare("embedding.quants", [a.vocab, a.hidden], TensorProto.UINT8)
    scales = builder.declare("embedding.scales", [a.vocab, a.hidden // BLOCK])
    return builder.add(
        "GatherBlockQuantized",
        [quants, "input_ids", scales],
        "embedded",
        bits=8,
        block_size=BLOCK,
        gather_axis=0,
        quantize_axis=1,
    )


def _declare_inputs(builder: _Builder) -> None:
    a = builder.architecture
    declare = helper.make_tensor_value_info
    builder.inputs += [
        declare("input_ids", TensorProto.INT64, ["B", "S"]),
        declare("seqlens_k", TensorProto.INT32, ["B"]),
        declare("total_sequence_length", TensorProto.INT32, []),
    ]
    for name in ("cos", "sin"):
        builder.declare(name, [a.max_positions, a.head_dim // 2])
    for i in range(a.layers):
        for kind in ("key", "value"):
            shape = ["B", a.kv_heads, "L", a.head_dim]
            builder.inputs.append(declare(f"past.{i}.{kind}", TensorProto.FLOAT, shape))
            builder.outputs.append(declare(f"present.{i}.{kind}", TensorProto.FLOAT, shape))


def _add_attention(builder: _Builder, i: int, normed: str) -> str:
    a = builder.architecture
    # One packed projection instead of three: fewer, larger products a token.
    width = a.query_width + 2 * a.kv_width
    packed = builder.add_linear(normed, f"layers.{i}.qkv", rows=width, columns=a.hidden)
    past = [f"past.{i}.key", f"past.{i}.value"]
    mixed, _, _ = builder.add_many(
        "GroupQueryAttention",
        [packed, "", "", *past, "seqlens_k", "total_sequence_length", "cos", "sin"],
        [f"layers.{i}.mixed", f"present.{i}.key", f"present.{i}.value"],
        num_heads=a.heads,
        kv_num_heads=a.kv_heads,
        do_rotary=1,
    )
    return builder.add_linear(mixed, f"layers.{i}.attention", rows=a.hidden, columns=a.query_width)


def _add_mlp(builder: _Builder, i: int, normed: str) -> str:
    a = builder.architecture
    sizes = {"rows": a.intermediate, "columns": a.hidden}
    gate = builder.add_linear(normed, f"layers.{i}.gate", **sizes)
    up = builder.add_linear(normed, f"layers.{i}.up", **sizes)
    # QuickGelu with alpha 1 is x * sigmoid(x), which is SiLU.
    active = builder.add("QuickGelu", [gate], f"layers.{i}.active", alpha=1.0)
    product = builder.add("Mul", [active, up], f"layers.{i}.product")
    return builder.add_linear(product, f"layers.{i}.down", rows=a.hidden, columns=a.intermediate)


def _add_skip_norm(builder: _Builder, branch: str, residual: str, gain: str) -> tuple[str, str]:
    """Add `residual + branch` and its RMS norm; returns both, the norm first."""
    normed, _, _, total = builder.add_many(
        "SkipSimplifiedLayerNormalization",
        [branch, residual, gain],
        [f"{gain}.out", "", "", f"{gain}.sum"],
        epsilon=builder.architecture.rms_eps,
    )
    return normed, total


def _add_head(builder: _Builder, normed: str, *, every_position: bool) -> None:
    """Add the language-model head over two-dimensional hidden states."""
    a = builder.architecture
    if every_position:
        shape = builder.add_constant("flat", [-1, a.hidden])
        hidden = builder.add("Reshape", [normed, shape], "hidden")
    else:
        last = builder.add_constant("last", [-1])
        picked = builder.add("Gather", [normed, last], "picked", axis=1)
        hidden = builder.add("Squeeze", [picked, builder.add_constant("one", [1])], "hidden")
    if builder.precision == "fp32":
        # transB reads the weight as the embedding lies in memory: tied models need no second copy.
        table = "embedding" if a.tied else builder.declare("head", [a.vocab, a.hidden])
        builder.add("Gemm", [hidden, table], "logits", transB=1)
    else:
        builder.add_int8(hidden, "head", "logits", rows=a.vocab, columns=a.hidden)
    row = "positions" if every_position else "B"
    builder.outputs.insert(0, helper.make_tensor_value_info("logits", TensorProto.FLOAT, [row, a.vocab]))
