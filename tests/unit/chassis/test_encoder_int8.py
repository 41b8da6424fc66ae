from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from shammah_chassis.encoder import EncoderSession
from shammah_chassis.encoder_int8 import quantise_graph
from shammah_chassis.errors import ArtifactError
from support.encoders import base_router

TEXTS = ["my card was lost", "book a table for two people at seven in the evening", "yes"]


def write_product(path: Path, weight: np.ndarray, *, kind: str = "MatMul") -> None:
    """Write a graph of two products by one transposed weight: `y = x @ W.T` and `z = y @ W.T`."""
    nodes = [
        helper.make_node("Transpose", ["weight"], ["turned"], perm=[1, 0]),
        helper.make_node(kind, ["x", "turned"], ["y"]),
        helper.make_node(kind, ["y", "turned"], ["z"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", len(weight)]) for name in "xyz"]
    graph = helper.make_graph(nodes, "product", values[:1], values[1:], [numpy_helper.from_array(weight, "weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def run(model: bytes, x: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(["y", "z"], {"x": x})


def test_a_quantised_product_is_close_to_the_exact_one_in_each_row(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(48, 48)).astype(np.float32)
    write_product(tmp_path / "graph.onnx", weight)
    # One large row: with a single scale for all rows the small ones would be rounded away.
    x = generator.normal(size=(4, 48)).astype(np.float32) * np.array([[1.0], [1000.0], [0.01], [1.0]], np.float32)
    y, z = run(quantise_graph(tmp_path / "graph.onnx").model, x)
    for found, exact in ((y, x @ weight.T), (z, x @ weight.T @ weight.T)):
        error = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
        assert (error > 0).all()
        assert (error < 0.03).all()


def test_rows_of_zeros_in_input_and_weight_stay_zeros(tmp_path: Path) -> None:
    weight = np.eye(16, dtype=np.float32)
    weight[3] = 0.0
    write_product(tmp_path / "graph.onnx", weight)
    x = np.ones((2, 16), np.float32)
    x[1] = 0.0
    y, z = run(quantise_graph(tmp_path / "graph.onnx").model, x)
    np.testing.assert_allclose(y[0], weight.sum(axis=1), atol=1e-6)
    assert (y[1] == 0).all()
    assert (z[1] == 0).all()


def test_embeddings_are_nearly_those_of_float32() -> None:
    folder = base_router()[0]
    exact, rounded = (
        EncoderSession(folder, threads=1, max_tokens=64, precision=precision) for precision in ("fp32", "int8")
    )
    first, second = exact.embed(TEXTS), rounded.embed(TEXTS)
    assert ((first * second).sum(axis=1) > 0.99).all()
    assert (np.abs(first - second).max(axis=1) > 1e-6).all()
    assert rounded.resident_bytes < exact.resident_bytes


def test_a_graph_without_a_product_by_a_weight_is_refused(tmp_path: Path) -> None:
    write_product(tmp_path / "graph.onnx", np.eye(4, dtype=np.float32), kind="Add")
    with pytest.raises(ArtifactError, match="no product"):
        quantise_graph(tmp_path / "graph.onnx")
