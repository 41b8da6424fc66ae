from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from shammah_chassis.manifest import load_json
from shammah_generator.architecture import Architecture
from shammah_generator.graph import build_graph, name_graph_file, write_graphs
from shammah_generator.precision import PRECISIONS

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
    "another family": {
        "layers": 3,
        "hidden": 96,
        "heads": 6,
        "kv_heads": 2,
        "head_dim": 48,
        "intermediate": 100,
        "vocab": 401,
        "tied": False,
        "rope": LLAMA3,
        "seed": 8,
    },
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
        assert np.abs(model.prefill(slot, row).logits(0) - reference(folder, row)[-1]).max() <= 1e-3
    for step in draw_rows((4, 4, 4), model.architecture.vocab):
        for row, token in zip(rows, step, strict=True):
            row.append(token)
        scores = model.decode(step)
        for place, row in enumerate(rows):
            assert np.abs(scores.logits(place) - reference(folder, row)[-1]).max() <= 1e-3


def test_every_position_of_a_prompt_equals_pytorch(folder, load, reference):
    model = load(folder, every_position=True)
    (row,) = draw_rows((33,), 512)
    scores = model.prefill(1, row)
    assert len(scores.tokens) == 33
    logits = np.stack([scores.logits(place) for place in range(33)])
    assert logits.shape == (33, 512)
    assert np.abs(logits - reference(folder, row)).max() <= 1e-3


@pytest.mark.parametrize(("precision", "most"), [("int8", 0.03), ("int8_fast", 0.06)])
@pytest.mark.parametrize("shape", ["plain", "untied", "another family", "bfloat16"])
def test_int8_stays_close_to_fp32(shape, precision, most, make_folder, load, reference):
    folder = make_folder(**SHAPES[shape])
    model = load(folder, precision=precision, every_position=True)
    for row in draw_rows((20, 40), model.architecture.vocab):
        scores = model.prefill(0, row)
        found = torch.tensor(np.stack([scores.logits(place) for place in range(len(row))])).log_softmax(-1)
        wanted = torch.tensor(reference(folder, row)).log_softmax(-1)
        divergence = (wanted.exp() * (wanted - found)).sum(-1).mean().item()
        # Never equal (that would be fp32 under another name), yet far below the entropy of about 4 nats.
        assert 1e-7 < divergence < most


def test_a_template_holds_no_weights(folder):
    for precision in PRECISIONS:
        path = folder / name_graph_file(precision)
        assert path.stat().st_size < 50_000
        graph = onnx.load_model(path, load_external_data=False).graph
        assert all(len(t.raw_data) + 8 * len(t.int64_data) < 64 for t in graph.initializer)


def test_the_same_config_gives_the_same_bytes(folder, tmp_path):
    write_graphs(tmp_path, load_json(folder / "config.json"))
    for precision in PRECISIONS:
        name = name_graph_file(precision)
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_the_head_computes_one_position_unless_all_are_asked_for(folder):
    architecture = Architecture.from_config(load_json(folder / "config.json"))
    for precision in ("fp32", "int8"):
        nodes = list(build_graph(architecture, precision=precision).graph.node)
        picks = [node.op_type for node in nodes].index("Squeeze")
        (head,) = (place for place, node in enumerate(nodes) if "logits" in node.output)
        assert picks < head
        every = build_graph(architecture, precision=precision, every_position=True)
        assert "Squeeze" not in [node.op_type for node in every.graph.node]
