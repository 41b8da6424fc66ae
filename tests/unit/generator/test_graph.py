from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from shammah_chassis.manifest import load_json
from shammah_generator.architecture import Architecture
from shammah_generator.graph import build_graph, name_graph_file, write_graphs

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SHAPES = {
    "plain": {},
    "untied": {"tied": False, "seed": 1},
    "one layer, no grouping": {"layers": 1, "heads": 2, "kv_heads": 2, "hidden": 32, "seed": 2},
    "wide and odd": {"layers": 3, "hidden": 96, "heads": 6, "kv_heads": 3, "intermediate": 80, "vocab": 401, "seed": 3},
    "llama3 rope": {"rope": LLAMA3, "seed": 4},
    "linear rope": {"rope": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.0}, "seed": 5},
    "bfloat16": {"dtype": torch.bfloat16, "seed": 6},
    "float16": {"dtype": torch.float16, "seed": 7},
}


def draw_rows(lengths: tuple[int, ...], vocab: int) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(0, vocab, length).tolist() for length in lengths]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_fp32_logits_are_those_of_pytorch_at_prefill_and_in_a_ragged_decode(shape, make_folder, load, reference):
    folder = make_folder(**shape)
    model = load(folder)
    rows = draw_rows((5, 1, 17, 60), model.architecture.vocab)
    for slot, row in enumerate(rows):
        assert np.abs(model.prefill(slot, row)[0] - reference(folder, row)[-1]).max() <= 1e-3
    for step in draw_rows((4, 4, 4), model.architecture.vocab):
        for row, token in zip(rows, step, strict=True):
            row.append(token)
        logits = model.decode([0, 1, 2, 3], step)
        for row, found in zip(rows, logits, strict=True):
            assert np.abs(found - reference(folder, row)[-1]).max() <= 1e-3


def test_every_position_of_a_prompt_equals_pytorch(folder, load, reference):
    model = load(folder, every_position=True)
    (row,) = draw_rows((33,), 512)
    logits = model.prefill(1, row)
    assert logits.shape == (33, 512)
    assert np.abs(logits - reference(folder, row)).max() <= 1e-3


@pytest.mark.parametrize("tied", [True, False])
def test_int8_stays_close_to_fp32(tied, make_folder, load, reference):
    folder = make_folder(tied=tied)
    model = load(folder, precision="int8", every_position=True)
    for row in draw_rows((20, 40), 512):
        found = torch.tensor(model.prefill(0, row)).log_softmax(-1)
        wanted = torch.tensor(reference(folder, row)).log_softmax(-1)
        divergence = (wanted.exp() * (wanted - found)).sum(-1).mean().item()
        # Never equal (that would be fp32 under another name), yet far below the entropy of about 4 nats.
        assert 1e-7 < divergence < 0.02


def test_a_template_holds_no_weights(folder):
    for precision in ("fp32", "int8"):
        path = folder / name_graph_file(precision)
        assert path.stat().st_size < 50_000
        graph = onnx.load_model(path, load_external_data=False).graph
        assert all(len(t.raw_data) + 8 * len(t.int64_data) < 64 for t in graph.initializer)


def test_the_same_config_gives_the_same_bytes(folder, tmp_path):
    write_graphs(tmp_path, load_json(folder / "config.json"))
    for precision in ("fp32", "int8"):
        name = name_graph_file(precision)
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_the_head_computes_one_position_unless_all_are_asked_for(folder):
    architecture = Architecture.from_config(load_json(folder / "config.json"))
    kinds = [node.op_type for node in build_graph(architecture, precision="int8").graph.node]
    assert kinds.index("Squeeze") < len(kinds) - 1 - kinds[::-1].index("MatMulNBits")
    every = build_graph(architecture, precision="int8", every_position=True)
    assert "Squeeze" not in [node.op_type for node in every.graph.node]
