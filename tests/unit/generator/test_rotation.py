from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shammah_chassis.manifest import load_json
from shammah_generator.architecture import Architecture
from shammah_generator.chat import load_tokenizer
from shammah_generator.graph import build_graph
from shammah_generator.model import GeneratorModel
from shammah_generator.rotation import Rotation
from shammah_generator.session import open_session
from shammah_generator.weights import _Quantiser

SHAPES = {
    "tied": {},
    "another family": {"tied": False, "hidden": 96, "heads": 6, "kv_heads": 2, "head_dim": 48, "intermediate": 100},
}


def load_rotated(folder):
    """Return a model of the plain fp32 graph whose weights are the rotated ones, before they are quantised."""
    architecture = Architecture.from_config(load_json(folder / "config.json"))
    source = _Quantiser(folder / "model.safetensors", architecture, precision="int8_fast")
    weights = {name: np.ones(architecture.hidden, np.float32) for name in source._norms}
    for name, _, weight in source._list_weights():
        if name in ("embedding", "head"):
            weights[name] = weight
        else:
            weights[f"{name}.transposed"] = np.ascontiguousarray(weight.T)
    weights["cos"], weights["sin"] = architecture.compute_rotary_tables()
    untied = replace(architecture, tied=False)  # the gain of the last normalisation was folded into the head
    return weights, GeneratorModel(
        open_session(build_graph(untied, precision="fp32", every_position=True), weights, threads=1),
        architecture=untied,
        tokenizer=load_tokenizer(folder / "tokenizer.json"),
        slots=1,
        context=96,
        weight_bytes=0,
        every_position=True,
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rotated_weights_compute_the_same_function(shape, make_folder, load, reference):
    folder = make_folder(**shape)
    weights, model = load_rotated(folder)
    plain = load(folder)
    assert np.abs(weights["layers.0.qkv.transposed"] - _plain_weight(folder, "layers.0.qkv.transposed")).max() > 0.1
    row = np.random.default_rng(1).integers(3, 512, 40).tolist()
    scores = model.prefill(0, row)
    logits = np.stack([scores.logits(place) for place in range(len(row))])
    assert np.abs(logits - reference(folder, row)).max() < 1e-3
    assert np.abs(logits[-1] - plain.prefill(0, row).logits(0)).max() < 1e-3
    model.close()


def _plain_weight(folder, name):
    from shammah_generator.weights import read_weights

    architecture = Architecture.from_config(load_json(folder / "config.json"))
    return read_weights(folder / "model.safetensors", architecture, precision="fp32", threads=1)[name]


def test_a_rotation_keeps_lengths_and_is_the_same_each_time():
    table = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    first, second = Rotation(64, 16).rotate_table(table), Rotation(64, 16).rotate_table(table)
    assert np.array_equal(first, second)
    assert np.linalg.norm(first, axis=1) == pytest.approx(np.linalg.norm(table, axis=1), rel=1e-5)
    assert np.abs(first - table).max() > 0.1


def test_an_outlier_of_one_channel_is_spread_over_all():
    table = np.zeros((1, 64), np.float32)
    table[0, 7] = 100
    assert np.abs(Rotation(64, 16).rotate_table(table)).max() < 60
