"""The decoder with its own loop: the graph for CUDA, where a step must need nothing from the host.

A step on one H200 takes 1 ms for one row, all of it launches; a round trip to the host between two steps would cost as
much again. So the graph chooses the likeliest token itself, writes it where the next step reads its input, counts the
lengths up, and leaves what the host wants to know in a ring of the last steps. It knows no sessions and no memory.

Further inputs and outputs beside those of `graph`: `next_ids` int64 `[B, 1]` and `next_seqlens` int32 `[B]`, to be
bound to the very memory of `input_ids` and `seqlens_k`; `ring` and `next_ring` float32 `[steps, B, 4]`, one memory too:
token, log-probability, entropy and margin of the step that began at length n of the first row are in place n modulo
`steps`.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from shammah_generator.architecture import Architecture
from shammah_generator.graph import OPSET, add_layers, add_logits, pick_last
from shammah_generator.linears import GraphBuilder
from shammah_generator.precision import Precision

RING_WIDTH = 4


def build_loop_graph(architecture: Architecture, *, precision: Precision, steps: int) -> onnx.ModelProto:
    """Build the template; `steps` is the length of the ring."""
    builder = GraphBuilder(architecture, precision)
    logits = add_logits(builder, pick_last(builder, add_layers(builder)))
    builder.rename(logits, "logits")
    ids, values = _add_top_two(builder)
    block = _add_scores(builder, ids, values)
    _add_loop(builder, ids, block, steps)
    declare = helper.make_tensor_value_info
    builder.inputs.append(declare("ring", TensorProto.FLOAT, [steps, "B", RING_WIDTH]))
    builder.outputs[:0] = [
        declare("logits", TensorProto.FLOAT, ["B", architecture.vocab]),
        declare("next_ids", TensorProto.INT64, ["B", 1]),
        declare("next_seqlens", TensorProto.INT32, ["B"]),
        declare("next_ring", TensorProto.FLOAT, [steps, "B", RING_WIDTH]),
    ]
    return builder.finish(OPSET)


def _add_top_two(builder: GraphBuilder) -> tuple[str, str]:
    """Return ids and values `[B, 2]` of the two largest logits."""
    builder.add_many("TopK", ["logits", builder.add_constant("two", [2])], ["top_two", "top_ids"], axis=-1)
    return "top_ids", "top_two"


def _add_scores(builder: GraphBuilder, ids: str, values: str) -> str:
    """Return token, log-probability, entropy and margin of the likeliest token, float32 `[B, 4]`.

    The largest share is gathered: ReduceMax over a row of the vocabulary takes milliseconds there, ReduceSum does not.
    """
    add = builder.add
    for name, place in (("first", 0), ("second", 1)):
        builder.add_constant(f"{name}.place", [place])
        add("Gather", [values, f"{name}.place"], f"{name}.value", axis=1)
    add("Gather", [ids, "first.place"], "next_ids", axis=1)
    add("Cast", ["next_ids"], "first.token", to=TensorProto.FLOAT)
    add("Softmax", ["logits"], "shares", axis=-1)
    add("GatherElements", ["shares", "next_ids"], "first.share", axis=1)
    add("Log", ["first.share"], "first.logprob")
    # H = log_total - sum p x, and log_total = x - log p for the first.
    add("Mul", ["shares", "logits"], "mean.parts")
    add("ReduceSum", ["mean.parts", builder.add_constant("mean.axis", [-1])], "mean", keepdims=1)
    add("Sub", ["first.value", "first.logprob"], "log_total")
    add("Sub", ["log_total", "mean"], "entropy")
    add("Sub", ["first.value", "second.value"], "margin")
    return add("Concat", ["first.token", "first.logprob", "entropy", "margin"], "block", axis=1)


def _add_loop(builder: GraphBuilder, ids: str, block: str, steps: int) -> None:
    add = builder.add
    for name, value in (("loop.steps", steps), ("loop.next", 1)):
        builder.initializers.append(helper.make_tensor(name, TensorProto.INT32, [1], [value]))
    add("Gather", ["seqlens_k", builder.add_constant("loop.first", [0])], "loop.length", axis=0)
    add("Mod", ["loop.length", "loop.steps"], "loop.rest")
    add("Cast", ["loop.rest"], "loop.place", to=TensorProto.INT64)
    place = add("Reshape", ["loop.place", builder.add_constant("loop.index", [1, 1])], "loop.indices")
    row = add("Unsqueeze", [block, "first.place"], "loop.row")
    add("ScatterND", ["ring", place, row], "next_ring")
    # `next_seqlens` overwrites what all layers read: nothing but a data dependence keeps it from being computed early.
    # So a zero is made of the last things that are computed.
    add("Sub", ["next_ids", "next_ids"], "loop.zeros")
    add("Mul", ["loop.zeros", "loop.place"], "loop.late")
    add("Cast", ["loop.late"], "loop.late_zeros", to=TensorProto.INT32)
    add("Reshape", ["loop.late_zeros", builder.add_constant("loop.rows", [-1])], "loop.wait")
    add("Add", ["seqlens_k", "loop.next"], "loop.counted")
    add("Add", ["loop.counted", "loop.wait"], "next_seqlens")
