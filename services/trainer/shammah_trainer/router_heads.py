"""The heads of a router's own graph, run on vectors that are known already: no query is encoded twice.

The part of the exported graph behind `embedding` is cut out of it and run as it is. It knows graphs, no categories.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx.utils import Extractor
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from shammah_chassis.encoder import GRAPH_NAME
from shammah_chassis.errors import ArtifactError
from shammah_chassis.neighbours import Floats

_INPUT = "embedding"
_OUTPUTS = ("local_probability", "category_probability", "nearness")
_FAILURES = (ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.InvalidGraph, ort_errors.NoSuchFile)


def run_heads(folder: Path, vectors: Floats) -> dict[str, Floats]:
    """Return `local_probability` `[n]`, `category_probability` and `nearness` `[n, slots]` of vectors `[n, d]`.

    The heads are float32 in every precision of the graph (see `encoder_int8`).

    Raises:
        ArtifactError: the graph can't be read or cut.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    try:
        graph = onnx.load(str(folder / GRAPH_NAME), load_external_data=False)
        heads = Extractor(graph).extract_model([_INPUT], list(_OUTPUTS))
        session = onnxruntime.InferenceSession(heads.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = session.run(list(_OUTPUTS), {_INPUT: np.ascontiguousarray(vectors, dtype=np.float32)})
    except (OSError, ValueError, KeyError, DecodeError, onnx.checker.ValidationError, *_FAILURES) as error:
        raise ArtifactError(f"the heads of {folder.name}/{GRAPH_NAME} can't be run alone: {error}") from error
    return dict(zip(_OUTPUTS, values, strict=True))
