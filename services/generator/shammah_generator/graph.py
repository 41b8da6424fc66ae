"""The ONNX template of a Llama-family decoder: nodes and names, no weights.

Built from the architecture in milliseconds. Every weight is an external initializer that `weights` provides by name, so
one graph serves every version of an architecture. It knows nothing of files with weights, sessions or tokens; which
product is computed how is `precision`, the products themselves `linears`.

Inputs: `input_ids` int64 `[B, S]`, `seqlens_k` int32 `[B]` (total length - 1 of each row), `total_sequence_length`
int32 scalar (longest row), `past.<i>.key|value` `[B, kv_heads, context, head_dim]`. Outputs: `logits` float32
`[B, vocab]` for the last position (`[B * S, vocab]` with `every_position`), the scores of `readout`, and
`present.<i>.key|value`, which must be bound to the very memory of `past`. Operators: ONNX Runtime's contrib
GroupQueryAttention, MatMulNBits and (Skip)SimplifiedLayerNormalization (github.com/microsoft/onnxruntime,
docs/ContribOperators.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from shammah_generator.architecture import Architecture
from shammah_generator.linears import GraphBuilder
from shammah_generator.precision import BLOCK, PRECISIONS, Precision
from shammah_generator.readout import add_readout

OPSET = 21


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
    builder = GraphBuilder(architecture, precision)
    normed = add_layers(builder)
    _add_head(builder, normed, every_position=every_position)
    return builder.finish(OPSET)


def add_layers(builder: GraphBuilder) -> str:
    """Add embedding and all layers; returns the normalised hidden states `[B, S, hidden]`."""
    a = builder.architecture
    _declare_inputs(builder)
    residual = _add_embedding(builder)
    gains = [name for i in range(a.layers) for name in (f"layers.{i}.norm", f"layers.{i}.mlp.norm")]
    gains = [builder.declare(name, [a.hidden], builder.element) for name in (*gains, "final.norm")]
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


def _add_embedding(builder: GraphBuilder) -> str:
    a = builder.architecture
    if builder.plan.linears["head"] == "plain":
        table = builder.declare("embedding", [a.vocab, a.hidden], builder.element)
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


def _declare_inputs(builder: GraphBuilder) -> None:
    a = builder.architecture
    declare = helper.make_tensor_value_info
    builder.inputs += [
        declare("input_ids", TensorProto.INT64, ["B", "S"]),
        declare("seqlens_k", TensorProto.INT32, ["B"]),
        declare("total_sequence_length", TensorProto.INT32, []),
    ]
    for name in ("cos", "sin"):
        builder.declare(name, [a.max_positions, a.head_dim // 2], builder.element)
    for i in range(a.layers):
        for kind in ("key", "value"):
            shape = ["B", a.kv_heads, "L", a.head_dim]
            builder.inputs.append(declare(f"past.{i}.{kind}", builder.element, shape))
            builder.outputs.append(declare(f"present.{i}.{kind}", builder.element, shape))


def _add_attention(builder: GraphBuilder, i: int, normed: str) -> str:
    a = builder.architecture
    # One packed projection instead of three: fewer, larger products a token.
    width = a.query_width + 2 * a.kv_width
    packed = builder.add_linear(normed, f"layers.{i}", "qkv", rows=width, columns=a.hidden)
    past = [f"past.{i}.key", f"past.{i}.value"]
    mixed, _, _ = builder.add_many(
        "GroupQueryAttention",
        [packed, "", "", *past, "seqlens_k", "total_sequence_length", "cos", "sin"],
        [f"layers.{i}.mixed", f"present.{i}.key", f"present.{i}.value"],
        num_heads=a.heads,
        kv_num_heads=a.kv_heads,
        do_rotary=1,
    )
    return builder.add_linear(mixed, f"layers.{i}", "attention", rows=a.hidden, columns=a.query_width)


def _add_mlp(builder: GraphBuilder, i: int, normed: str) -> str:
    a = builder.architecture
    sizes = {"rows": a.intermediate, "columns": a.hidden}
    gate = builder.add_linear(normed, f"layers.{i}", "gate", **sizes)
    up = builder.add_linear(normed, f"layers.{i}", "up", **sizes)
    # QuickGelu with alpha 1 is x * sigmoid(x), which is SiLU.
    active = builder.add("QuickGelu", [gate], f"layers.{i}.active", alpha=1.0)
    product = builder.add("Mul", [active, up], f"layers.{i}.product")
    return builder.add_linear(product, f"layers.{i}", "down", rows=a.hidden, columns=a.intermediate)


def _add_skip_norm(builder: GraphBuilder, branch: str, residual: str, gain: str) -> tuple[str, str]:
    """Add `residual + branch` and its RMS norm; returns both, the norm first."""
    normed, _, _, total = builder.add_many(
        "SkipSimplifiedLayerNormalization",
        [branch, residual, gain],
        [f"{gain}.out", "", "", f"{gain}.sum"],
        epsilon=builder.architecture.rms_eps,
    )
    return normed, total


def _add_head(builder: GraphBuilder, normed: str, *, every_position: bool) -> None:
    """Add the language-model head and its readout."""
    if every_position:
        shape = builder.add_constant("flat", [-1, builder.architecture.hidden])
        hidden = builder.add("Reshape", [normed, shape], "hidden")
        add_readout(builder, add_logits(builder, hidden), row="positions")
    else:
        add_readout(builder, add_logits(builder, pick_last(builder, normed)), row="B")


def pick_last(builder: GraphBuilder, normed: str) -> str:
    """Return the hidden states `[B, hidden]` of the last position."""
    last = builder.add_constant("last", [-1])
    picked = builder.add("Gather", [normed, last], "picked", axis=1)
    return builder.add("Squeeze", [picked, builder.add_constant("one", [1])], "hidden")


def add_logits(builder: GraphBuilder, hidden: str) -> str:
    """Add the product with the head; returns float32 logits `[rows, vocab]`."""
    a = builder.architecture
    if builder.plan.linears["head"] != "plain":
        return builder.add_linear(hidden, "", "head", rows=a.vocab, columns=a.hidden)
    # transB reads the weight as the embedding lies in memory: tied models need no second copy.
    table = "embedding" if a.tied else builder.declare("head", [a.vocab, a.hidden], builder.element)
    made = builder.add("Gemm", [hidden, table], "head.out", transB=1)
    if builder.element == TensorProto.FLOAT:
        return made
    return builder.add("Cast", [made], "head.float", to=TensorProto.FLOAT)
