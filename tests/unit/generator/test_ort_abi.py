"""The declared part of ONNX Runtime's C interface is the one of the installed runtime."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

NATIVE = Path(__file__).resolve().parents[3] / "services/generator/native"
SOURCE = """
#include "ort_abi.h"
using shammah::Type;
struct Affine {
  static constexpr shammah::Signature signature{"Affine", shammah::kCpu, 2, {Type::f32, Type::f32}, 1, {Type::f32}};
  explicit Affine(const shammah::Info& info) : steps(info.integer("steps")), scale(info.real("scale")) {
    if (info.constant(0) != nullptr || info.api().dims(info.constant(1)).size() != 1) throw std::runtime_error("bias");
  }
  void compute(const shammah::Context& context) const {
    auto dims = context.dims(0);
    if (dims.size() != 2) throw std::runtime_error("two dimensions were wanted");
    if (context.stream() != nullptr) throw std::runtime_error("no stream was wanted");
    const float* x = context.data<float>(0);
    const float* bias = context.data<float>(1);
    float* y = context.output<float>(0, dims);
    int64_t width = dims[1];
    context.parallel_for(size_t(dims[0]), [&](size_t row) {
      for (int64_t i = row * width; i < int64_t(row + 1) * width; i++) y[i] = x[i] * scale * steps + bias[i % width];
    });
  }
  int64_t steps;
  float scale;
};
extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  return shammah::register_ops<Affine>(options, base);
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("abi")
    (folder / "affine.cc").write_text(SOURCE)
    made = folder / "affine.so"
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-shared", "-fPIC", f"-I{NATIVE}"]
    subprocess.run([*command, str(folder / "affine.cc"), "-o", str(made)], check=True)
    return made


def open_session(library: Path, **attributes: float) -> ort.InferenceSession:
    node = helper.make_node("Affine", ["x", "bias"], ["y"], domain="shammah", **attributes)
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, None)] for name in "xy")
    bias = helper.make_tensor("bias", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("shammah", 1)]
    model = helper.make_model(
        helper.make_graph([node], "affine", inputs, outputs, [bias]), opset_imports=opsets, ir_version=10
    )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    options.register_custom_ops_library(str(library))
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_an_operator_computes_in_the_threads_of_two_sessions(library: Path) -> None:
    x = np.arange(300, dtype=np.float32).reshape(100, 3)
    for steps in (2, 3):
        (found,) = open_session(library, steps=steps, scale=0.5).run(None, {"x": x})
        assert np.allclose(found, x * 0.5 * steps + [1, 2, 3])


def test_what_an_operator_throws_is_the_error_of_the_run(library: Path) -> None:
    session = open_session(library, steps=1, scale=1.0)
    with pytest.raises(Exception, match="two dimensions were wanted"):
        session.run(None, {"x": np.zeros(3, np.float32)})


def test_an_attribute_that_is_missing_is_the_error_of_the_session(library: Path) -> None:
    with pytest.raises(Exception, match="scale"):
        open_session(library, steps=1)
