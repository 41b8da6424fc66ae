from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from shammah_chassis.manifest import load_json
from shammah_generator.architecture import Architecture
from shammah_generator.linears import GraphBuilder
from shammah_generator.readout import READOUT, add_readout


def score_plainly(logits):
    """Return log-probabilities, entropy and the gap of the two largest, in float64 and in the most obvious way."""
    rows = logits.astype(np.float64)
    logs = rows - rows.max(-1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(-1, keepdims=True))
    two = np.sort(rows, -1)[:, -2:]
    return logs, -(np.exp(logs) * logs).sum(-1), two[:, 1] - two[:, 0]


@pytest.fixture(scope="module")
def read_out(folder):
    """Return what runs the readout alone over logits."""
    architecture = Architecture.from_config(load_json(folder / "config.json"))
    builder = GraphBuilder(architecture, "fp32")
    builder.inputs.append(helper.make_tensor_value_info("given", TensorProto.FLOAT, ["B", architecture.vocab]))
    add_readout(builder, builder.add("Identity", ["given"], "made"), row="B")
    session = ort.InferenceSession(builder.finish(21).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert set(names) == READOUT
    return lambda logits: dict(zip(names, session.run(None, {"given": logits}), strict=True))


@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0, 60.0])
@pytest.mark.parametrize("shift", [0.0, -300.0, 500.0])
def test_the_readout_is_log_softmax_entropy_and_the_two_largest(read_out, spread, shift):
    logits = (spread * np.random.default_rng(3).standard_normal((7, 512)) + shift).astype(np.float32)
    logs, entropy, margin = score_plainly(logits)
    found = read_out(logits)
    assert np.array_equal(found["logits"], logits)
    order = np.argsort(-logits, -1)[:, :2]
    assert np.array_equal(found["top_ids"], order)
    assert np.array_equal(found["top_values"], np.take_along_axis(logits, order, -1))
    # Float32 near 500 is exact to 3e-5, and the entropy is a difference of two such numbers.
    close = 2e-5 * max(1.0, np.abs(logits).max())
    top = np.take_along_axis(logs, order[:, :1], -1)[:, 0]
    assert np.abs(found["top_values"][:, 0] - found["log_total"] - top).max() < close
    assert np.abs(found["entropy"] - entropy).max() < close
    assert np.abs(found["top_values"][:, 0] - found["top_values"][:, 1] - margin).max() < close


def test_a_row_that_is_no_number_shows_and_leaves_its_neighbours_alone(read_out):
    logits = np.random.default_rng(4).standard_normal((3, 512)).astype(np.float32)
    wanted = read_out(logits)
    for broken in (np.nan, np.inf):
        spoiled = logits.copy()
        spoiled[1, 77] = broken
        found = read_out(spoiled)
        assert not np.isfinite(found["log_total"][1])
        for name in READOUT - {"logits"}:
            assert np.array_equal(found[name][[0, 2]], wanted[name][[0, 2]])


@pytest.mark.parametrize("precision", ["fp32", "int8", "int8_fast"])
def test_the_scores_of_a_model_are_those_of_its_own_logits(folder, load, precision):
    model = load(folder, precision=precision)
    for slot, length in enumerate((3, 20, 50)):
        model.prefill(slot, np.random.default_rng(slot).integers(3, 512, length).tolist())
    scores = model.decode([7, 8, 9])
    logits = np.stack([scores.logits(row) for row in range(3)])
    logs, entropy, margin = score_plainly(logits)
    for row in range(3):
        one = scores.read(row, 0)
        assert one.token == logits[row].argmax()
        assert one.logprob == one.top_logprob == pytest.approx(logs[row].max(), abs=1e-4)
        assert one.entropy == pytest.approx(entropy[row], abs=1e-4)
        assert one.margin == pytest.approx(margin[row], abs=1e-4)
