"""The end of the graph: what the engine wants to know of each row of logits, computed where the logits are.

For a vocabulary of 49,152 this costs 60 us a row inside the graph and three times as much outside. It knows logits, not
how tokens are chosen from them.
"""

from __future__ import annotations

from onnx import TensorProto, helper

from shammah_generator.linears import GraphBuilder

READOUT = frozenset({"logits", "top_ids", "top_values", "log_total", "entropy"})


def add_readout(builder: GraphBuilder, logits: str, *, row: str) -> None:
    """Declare the outputs that the engine reads.

    These are `logits` float32 `[rows, vocab]` and, of each row: `top_ids` int64 and `top_values` float32 `[rows, 2]`,
    the two largest logits; `log_total` float32 `[rows]`, the logarithm of the sum of their exponentials; `entropy`
    float32 `[rows]` in nats.
    """
    add, float32 = builder.add, TensorProto.FLOAT
    builder.add_constant("readout.two", [2])
    builder.add_constant("readout.axis", [-1])
    builder.rename(logits, "logits")
    builder.add_many("TopK", ["logits", "readout.two"], ["top_values", "top_ids"], axis=-1)
    add("Softmax", ["logits"], "readout.shares", axis=-1)
    add("ReduceMax", ["readout.shares", "readout.axis"], "readout.peak", keepdims=0)
    add("ReduceMax", ["logits", "readout.axis"], "readout.top", keepdims=0)
    # log sum exp = the largest logit - the logarithm of its share.
    add("Log", ["readout.peak"], "readout.log_peak")
    add("Sub", ["readout.top", "readout.log_peak"], "log_total")
    # H = -sum p log p with log p = logit - log_total.
    add("Mul", ["readout.shares", "logits"], "readout.weighted")
    add("ReduceSum", ["readout.weighted", "readout.axis"], "readout.mean", keepdims=0)
    add("Sub", ["log_total", "readout.mean"], "entropy")
    declare = helper.make_tensor_value_info
    builder.outputs[:0] = [
        declare("logits", float32, [row, builder.architecture.vocab]),
        declare("top_ids", TensorProto.INT64, [row, 2]),
        declare("top_values", float32, [row, 2]),
        declare("log_total", float32, [row]),
        declare("entropy", float32, [row]),
    ]
