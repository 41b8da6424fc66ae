"""Opens an ONNX Runtime session from a template graph and the weights that it declares.

It knows names and arrays; what the graph computes and how its inputs are fed is the affair of `graph` and `model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from shammah_chassis.errors import ArtifactError

from shammah_generator.architecture import Architecture
from shammah_generator.arrays import Array
from shammah_generator.graph import build_graph, name_graph_file
from shammah_generator.precision import Precision
from shammah_generator.readout import READOUT
from shammah_generator.weights import check_weights

_CPU = ("CPUExecutionProvider",)
# ONNX Runtime's errors share no base class but Exception.
_ORT_ERRORS = (ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.InvalidGraph, ort_errors.NotImplemented)


def read_graph(folder: Path, architecture: Architecture, precision: Precision) -> onnx.ModelProto:
    """Read the template of a version folder; one that was written before this precision was known is built instead.

    Raises:
        ArtifactError: there, but not a graph.
    """
    path = folder / name_graph_file(precision)
    if not path.exists():
        return build_graph(architecture, precision=precision)
    try:
        # Without the external data: the names are all that the template holds.
        graph: onnx.ModelProto = onnx.load_model(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise ArtifactError(f"graph {path.name} can't be read: {error}") from error
    if {output.name for output in graph.graph.output} >= READOUT:
        return graph
    return build_graph(architecture, precision=precision)


def open_session(
    graph: onnx.ModelProto,
    weights: Mapping[str, Array],
    *,
    threads: int,
    providers: Sequence[Any] = _CPU,
    library: Path | None = None,
) -> ort.InferenceSession:
    """Open a session whose declared weights are the given arrays; `library` has operators that are not ONNX Runtime's.

    Raises:
        ArtifactError: a weight is missing or has another shape, or ONNX Runtime refuses the graph.
    """
    declared = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer if tensor.external_data}
    check_weights(weights, declared)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if library is not None:
        options.register_custom_ops_library(str(library))
    values = [ort.OrtValue.ortvalue_from_numpy(weights[name]) for name in declared]
    options.add_external_initializers(list(declared), values)
    try:
        return ort.InferenceSession(graph.SerializeToString(), options, providers=list(providers))
    except _ORT_ERRORS as error:
        raise ArtifactError(f"ONNX Runtime refuses the graph: {error}") from error


def count_bytes(weights: Mapping[str, Array]) -> int:
    """Count each piece of memory once (a tied head and its embedding are one)."""
    return sum({array.ctypes.data: array.nbytes for array in weights.values()}.values())
