from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from shammah_chassis.errors import ArtifactError, InvalidInputError, ShammahError
from shammah_chassis.manifest import Manifest, describe_files, load_json, version_name
from shammah_generator.graph import write_graphs
from shammah_generator.model import GeneratorModel

PROMPT = list(range(10, 30))
GARBAGE = b"\x00 not at all what it should be"
CPU_PRECISIONS = ("fp32", "int8", "int8_fast")


def compute(model, ids, *, slot=0):
    """Return the logits behind a prompt."""
    return model.prefill(slot, ids).logits(0).copy()


def copy_folder(folder, target):
    shutil.copytree(folder, target)
    return target


def test_two_loads_of_the_same_folder_compute_equal_logits(folder, load, tmp_path):
    copied = copy_folder(folder, tmp_path / "copy")
    for precision in ("fp32", "int8", "int8_fast"):
        first = compute(load(folder, precision=precision), PROMPT)
        assert np.array_equal(first, compute(load(copied, precision=precision), PROMPT))


def test_a_version_folder_is_read_by_its_manifest(folder, load, tmp_path):
    copied = copy_folder(folder, tmp_path / "copy")
    config = load_json(copied / "config.json")
    (copied / "config.json").unlink()
    files = describe_files(copied)
    manifest = Manifest(
        role="generator",
        version=version_name("generator", files),
        parent="",
        step=0,
        created_at=0.0,
        config=config,
        files=files,
    )
    (copied / "manifest.json").write_text(manifest.to_json())
    cache = tmp_path / "cache"
    logits = compute(load(copied, precision="int8", cache_dir=cache), PROMPT)
    assert np.array_equal(logits, compute(load(folder, precision="int8"), PROMPT))
    assert files["model.safetensors"].sha256 in next(cache.iterdir()).name


def test_the_same_graph_serves_other_weights(folder, make_folder, load, tmp_path, reference):
    other = make_folder(seed=9)
    mixed = copy_folder(folder, tmp_path / "mixed")
    shutil.copy(other / "model.safetensors", mixed / "model.safetensors")
    logits = compute(load(mixed), PROMPT)
    assert np.abs(logits - reference(other, PROMPT)[-1]).max() <= 1e-3
    assert np.abs(logits - reference(folder, PROMPT)[-1]).max() > 0.1


def test_a_tensor_of_another_shape_is_refused_with_its_name_and_both_shapes(folder, load, tmp_path):
    copied = copy_folder(folder, tmp_path / "copy")
    weights = load_file(copied / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name] = weights[name][:, :-1].contiguous()
    save_file(weights, copied / "model.safetensors")
    for precision in ("fp32", "int8", "int8_fast"):
        with pytest.raises(ArtifactError) as caught:
            load(copied, precision=precision)
        assert name in str(caught.value)
        assert "[96, 63]" in str(caught.value)
        assert "[96, 64]" in str(caught.value)


def test_a_graph_of_another_architecture_is_refused_with_both_shapes(folder, make_folder, load, tmp_path):
    copied = copy_folder(folder, tmp_path / "copy")
    write_graphs(copied, load_json(make_folder(hidden=96, heads=6) / "config.json"))
    with pytest.raises(ArtifactError, match=r"\[512, 64\].*\[512, 96\]"):
        load(copied)


@pytest.mark.parametrize(
    ("broken", "content"),
    [
        ("graph.fp32.onnx", GARBAGE),
        *(
            (name, content)
            for name in ("model.safetensors", "tokenizer.json", "config.json")
            for content in (None, GARBAGE)
        ),
    ],
)
def test_a_missing_or_broken_file_is_an_artifact_error(folder, load, tmp_path, broken, content):
    copied = copy_folder(folder, tmp_path / "copy")
    (copied / broken).unlink()
    if content is not None:
        (copied / broken).write_bytes(content)
    with pytest.raises(ArtifactError):
        load(copied)


def test_a_truncated_weights_file_is_refused(folder, load, tmp_path):
    copied = copy_folder(folder, tmp_path / "copy")
    whole = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(whole[:-1000])
    with pytest.raises(ArtifactError, match=r"does not lie inside model\.safetensors"):
        load(copied)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"precision": "int4"}, "fp32, int8"),
        ({"context": 257}, "2 to 256"),
        ({"context": 1}, "2 to 256"),
        ({"slots": 0}, "1 or more"),
        ({"threads": 0}, "1 or more"),
    ],
)
def test_settings_out_of_range_are_refused_with_the_range(folder, load, changes, word):
    with pytest.raises(InvalidInputError, match=word):
        load(folder, **changes)


def test_slots_do_not_disturb_each_other(folder, load):
    model = load(folder)
    alone = compute(model, PROMPT)
    model.prefill(1, PROMPT[::-1])
    model.prefill(3, PROMPT[:3])
    assert np.array_equal(compute(model, PROMPT, slot=2), alone)


def test_a_moved_slot_goes_on_where_it_was(folder, load, reference):
    model = load(folder)
    model.prefill(0, PROMPT[:2])
    model.prefill(3, PROMPT)
    model.move(3, 1)
    logits = model.decode([7, 7]).logits(1)
    assert np.abs(logits - reference(folder, [*PROMPT, 7])[-1]).max() <= 1e-3


def test_a_step_of_the_first_rows_leaves_the_others_where_they_are(folder, load, reference):
    model = load(folder)
    for slot in range(4):
        model.prefill(slot, PROMPT[: slot + 1])
    model.prefill(5, PROMPT)  # a prompt under way, behind the rows
    model.decode([5, 6])
    scores = model.decode([7, 8, 9, 10])
    for slot, past in enumerate(([5, 7], [6, 8], [9], [10])):
        assert np.abs(scores.logits(slot) - reference(folder, [*PROMPT[: slot + 1], *past])[-1]).max() <= 1e-3
    model.move(5, 0)
    logits = model.decode([3]).logits(0)
    assert np.abs(logits - reference(folder, [*PROMPT, 3])[-1]).max() <= 1e-3


def test_a_slot_can_be_filled_to_its_last_place_and_no_further(folder, load, reference):
    model = load(folder, context=24)
    row = list(PROMPT)
    model.prefill(0, row)
    for token in (1, 2, 3, 4):
        row.append(token)
        logits = model.decode([token]).logits(0)
    assert np.abs(logits - reference(folder, row)[-1]).max() <= 1e-3
    with pytest.raises(InvalidInputError, match="1 to 23"):
        model.decode([5])
    with pytest.raises(InvalidInputError, match="1 to 24"):
        model.prefill(0, [1] * 25)


@pytest.mark.parametrize(("rows", "steps"), [(0, 1), (5, 1), (1, 2), (1, 0)])
def test_too_many_rows_or_steps_are_refused(folder, load, rows, steps):
    model = load(folder)
    for slot in range(4):
        model.prefill(slot, PROMPT)
    with pytest.raises(InvalidInputError, match="allowed: 1 to 4 rows, one step"):
        model.decode([1] * rows, steps=steps)


@pytest.mark.parametrize("slot", [-1, 8])
def test_a_slot_that_does_not_exist_is_refused(folder, load, slot):
    with pytest.raises(InvalidInputError, match="0 to 7"):
        load(folder).prefill(slot, PROMPT)


def test_an_empty_slot_cannot_be_decoded_and_nothing_can_stand_behind_it(folder, load):
    model = load(folder)
    with pytest.raises(InvalidInputError, match="hold 0"):
        model.decode([1])
    with pytest.raises(InvalidInputError, match="at most the 0"):
        model.prefill(0, PROMPT, past=3)


def test_sizes_count_buffers_and_weights(folder, load):
    model = load(folder)
    # 2 layers, key and value, 4 slots and 4 for prompts under way, 2 heads, 96 tokens, 16 numbers of 4 bytes
    assert model.kv_bytes == 2 * 2 * (4 + 4) * 2 * 96 * 16 * 4
    parameters = sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    tables = 2 * 256 * 8
    assert model.resident_bytes - model.kv_bytes == 4 * (parameters + tables)
    small = load(folder, precision="int8")
    assert small.resident_bytes - small.kv_bytes < 0.5 * 4 * parameters


def test_a_closed_model_refuses_to_compute(folder, load):
    model = load(folder)
    model.close()
    with pytest.raises(InvalidInputError, match="closed"):
        model.prefill(0, PROMPT)


def test_an_unreadable_header_is_an_artifact_error(folder, load, tmp_path):
    copied = copy_folder(folder, tmp_path / "copy")
    header = json.dumps({"model.norm.weight": 3}).encode()
    (copied / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ArtifactError):
        load(copied)


@pytest.fixture(scope="module")
def whole(folder):
    """One model for many prompts, and what it gives for a prompt computed at once."""
    model = GeneratorModel.load(folder, precision="fp32", threads=1, slots=2, context=96)
    yield model
    model.close()


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) < 90),
    slot=st.integers(2, 4),
    seed=st.integers(0, 9),
)
def test_a_prompt_in_pieces_gives_what_the_whole_one_gives(whole, sizes, slot, seed):
    ids = np.random.default_rng(seed).integers(3, 512, sum(sizes)).tolist()
    wanted = compute(whole, ids, slot=5)
    done = 0
    for size in sizes:
        scores = whole.prefill(slot, ids[done : done + size], past=done)
        done += size
    assert np.abs(scores.logits(0) - wanted).max() <= 1e-4
    kept = [whole.read_prefix(one, 0, len(ids)) for one in (slot, 5)]
    assert np.abs(kept[0] - kept[1]).max() <= 1e-4
    whole.move(slot, 0)
    whole.move(5, 1)
    after = whole.decode([7, 7])
    assert np.abs(after.logits(0) - after.logits(1)).max() <= 1e-4


@pytest.mark.parametrize("precision", ["int8", "int8_fast"])
def test_pieces_change_little_at_the_quantised_precisions(folder, load, precision):
    model = load(folder, precision=precision)
    wanted = compute(model, PROMPT)
    model.prefill(1, PROMPT[:13])
    found = model.prefill(1, PROMPT[13:], past=13).logits(0)
    # Each row of activations has its own scale: only rounding within one step can differ.
    assert np.abs(found - wanted).max() < 0.05


def test_what_stands_behind_a_shortened_prompt_is_not_seen(folder, load):
    model = load(folder)
    wanted = compute(model, [*PROMPT[:8], 99])
    model.prefill(1, PROMPT)
    found = model.prefill(1, [99], past=8).logits(0)
    assert np.abs(found - wanted).max() <= 1e-4


@pytest.mark.parametrize("precision", CPU_PRECISIONS)
def test_a_version_from_before_a_precision_was_known_is_served(folder, load, tmp_path, precision):
    wanted = compute(load(folder, precision=precision), PROMPT)
    older = copy_folder(folder, tmp_path / "older")
    for graph in older.glob("graph.*.onnx"):
        graph.unlink()
    assert np.array_equal(compute(load(older, precision=precision), PROMPT), wanted)


def test_a_template_that_does_not_score_its_rows_is_replaced(folder, load, tmp_path):
    older = copy_folder(folder, tmp_path / "older")
    path = older / "graph.fp32.onnx"
    graph = onnx.load_model(path, load_external_data=False)
    kept = [output for output in graph.graph.output if output.name == "logits" or output.name.startswith("present")]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    path.write_bytes(graph.SerializeToString())
    assert np.array_equal(compute(load(older), PROMPT), compute(load(folder), PROMPT))


def test_a_precision_for_gpus_is_refused_with_those_for_cpus(folder, load):
    with pytest.raises(InvalidInputError, match="fp32, int8, int8_fast"):
        load(folder, precision="fp16")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("source", "ours"),
    [
        ("model.layers.1.mlp.gate_proj.weight", "layers.1.gate"),
        ("model.layers.0.self_attn.q_proj.weight", "layers.0.qkv"),
        ("model.layers.1.input_layernorm.weight", "layers.1.norm"),
        ("model.embed_tokens.weight", "embedding"),
    ],
)
def test_weights_that_are_no_numbers_are_named_and_never_served(folder, load, tmp_path, source, ours, bad):
    copied = copy_folder(folder, tmp_path / "copy")
    weights = load_file(copied / "model.safetensors")
    weights[source][(3,) * weights[source].dim()] = bad
    save_file(weights, copied / "model.safetensors")
    for precision in ("int8", "int8_fast"):
        with pytest.raises(ArtifactError, match=f"'{ours}'.*finite"):
            load(copied, precision=precision)
    with pytest.raises(ShammahError, match="not numbers"):
        load(copied).prefill(0, [3, 4, 5])
