"""The CUDA operators compiled for a CPU (`cuda_emulate.h`), and one of them run by ONNX Runtime."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

NATIVE = Path(__file__).resolve().parents[2] / "services/generator/native"
_FLAGS = ("-std=c++17", "-O1", "-fno-strict-aliasing", "-w", "-DSHAMMAH_EMULATE", "-shared", "-fPIC")
_OUTPUTS = {
    "NormLinear": "hh",
    "AddLinear": "h",
    "NormSwiglu": "hhh",
    "NormHead": "fh",
    "DecodeAttention": "hhh",
    "ReadLogits": "liff",
}
_KINDS = {"h": TensorProto.FLOAT16, "f": TensorProto.FLOAT, "i": TensorProto.INT32, "l": TensorProto.INT64}


def build_emulated(folder: Path) -> Path:
    """Compile the operators, or skip the test where there is no compiler that knows halves."""
    import pytest  # here, since a benchmark on a GPU machine uses the rest

    compiler, made = shutil.which("c++"), folder / "cuda_emulated.so"
    if compiler is None:
        pytest.skip("no C++ compiler")
    includes = [f"-I{Path(__file__).parent}", f"-I{NATIVE}"]
    source = ["-x", "c++", str(NATIVE / "cuda_ops.cu")]
    ran = subprocess.run(
        [compiler, *_FLAGS, *includes, *source, "-o", str(made)], capture_output=True, text=True, check=False
    )
    if "_Float16" in ran.stderr:
        pytest.skip("this C++ compiler has no _Float16")
    assert ran.returncode == 0, ran.stderr
    return made


def open_operator(
    library: Path, kind: str, inputs: list[np.ndarray], providers: list[str], **attributes: float
) -> ort.InferenceSession:
    """Open a session of one operator with inputs `i0`, `i1`, ... and outputs `o0`, ..."""
    names = [f"i{number}" for number in range(len(inputs))]
    made = [f"o{number}" for number in range(len(_OUTPUTS[kind]))]
    graph = helper.make_graph(
        [helper.make_node(kind, names, made, domain="shammah", **attributes)],
        kind,
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
            for name, array in zip(names, inputs, strict=True)
        ],
        [
            helper.make_tensor_value_info(name, _KINDS[letter], None)
            for name, letter in zip(made, _OUTPUTS[kind], strict=True)
        ],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("shammah", 1)]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), options, providers=providers)


def run_operator(
    library: Path, kind: str, inputs: list[np.ndarray], *, provider: str = "CPUExecutionProvider", **attributes: float
) -> list[np.ndarray]:
    """Return the outputs of one operator."""
    session = open_operator(library, kind, inputs, [provider], **attributes)
    made: list[np.ndarray] = session.run(None, {f"i{number}": array for number, array in enumerate(inputs)})
    return made
