from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from shammah_chassis.errors import ArtifactError, InvalidInputError
from shammah_chassis.manifest import Manifest, describe_files, load_json, version_name
from shammah_generator.graph import write_graphs

PROMPT = list(range(10, 30))


def copy_folder(folder, target):
    shutil.copytree(folder, target)
    return target


def test_two_loads_of_the_same_folder_compute_equal_logits(folder, load, tmp_path):
    copied = copy_folder(folder, tmp_path / "copy")
    for precision in ("fp32", "int8"):
        first = load(folder, precision=precision).prefill(0, PROMPT)
        assert np.array_equal(first, load(copied, precision=precision).prefill(0, PROMPT))


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
    logits = load(copied, precision="int8", cache_dir=cache).prefill(0, PROMPT)
    assert np.array_equal(logits, load(folder, precision="int8").prefill(0, PROMPT))
    assert files["model.safetensors"].sha256 in next(cache.iterdir()).name


def test_the_same_graph_serves_other_weights(folder, make_folder, load, tmp_path, reference):
    other = make_folder(seed=9)
    mixed = copy_folder(folder, tmp_path / "mixed")
    shutil.copy(other / "model.safetensors", mixed / "model.safetensors")
    logits = load(mixed).prefill(0, PROMPT)[0]
    assert np.abs(logits - reference(other, PROMPT)[-1]).max() <= 1e-3
    assert np.abs(logits - reference(folder, PROMPT)[-1]).max() > 0.1


def test_a_tensor_of_another_shape_is_refused_with_its_name_and_both_shapes(folder, load, tmp_path):
    copied = copy_folder(folder, tmp_path / "copy")
    weights = load_file(copied / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name] = weights[name][:, :-1].contiguous()
    save_file(weights, copied / "model.safetensors")
    for precision in ("fp32", "int8"):
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


@pytest.mark.parametrize("broken", ["graph.fp32.onnx", "model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("content", [None, b"\x00 not at all what it should be"])
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
    ("settings", "word"),
    [
        ({"precision": "int4"}, "fp32, int8"),
        ({"context": 257}, "2 to 256"),
        ({"context": 1}, "2 to 256"),
        ({"slots": 0}, "1 or more"),
        ({"threads": 0}, "1 or more"),
    ],
)
def test_settings_out_of_range_are_refused_with_the_range(folder, load, settings, word):
    with pytest.raises(InvalidInputError, match=word):
        load(folder, **settings)


def test_slots_do_not_disturb_each_other(folder, load):
    model = load(folder)
    alone = model.prefill(0, PROMPT).copy()
    model.prefill(1, PROMPT[::-1])
    model.prefill(3, PROMPT[:3])
    assert np.array_equal(model.prefill(2, PROMPT), alone)


def test_a_moved_slot_goes_on_where_it_was(folder, load, reference):
    model = load(folder)
    model.prefill(0, PROMPT[:2])
    model.prefill(3, PROMPT)
    model.move(3, 1)
    logits = model.decode([0, 1], [7, 7])
    assert np.abs(logits[1] - reference(folder, [*PROMPT, 7])[-1]).max() <= 1e-3


def test_a_neighbouring_run_need_not_start_at_the_first_slot(folder, load, reference):
    model = load(folder)
    for slot in range(4):
        model.prefill(slot, PROMPT[: slot + 1])
    logits = model.decode([2, 3], [5, 6])
    assert np.abs(logits[0] - reference(folder, [*PROMPT[:3], 5])[-1]).max() <= 1e-3
    assert np.abs(logits[1] - reference(folder, [*PROMPT[:4], 6])[-1]).max() <= 1e-3


def test_a_slot_can_be_filled_to_its_last_place_and_no_further(folder, load, reference):
    model = load(folder, context=24)
    row = list(PROMPT)
    model.prefill(0, row)
    for token in (1, 2, 3, 4):
        row.append(token)
        logits = model.decode([0], [token])
    assert np.abs(logits[0] - reference(folder, row)[-1]).max() <= 1e-3
    with pytest.raises(InvalidInputError, match="1 to 23"):
        model.decode([0], [5])
    with pytest.raises(InvalidInputError, match="1 to 24"):
        model.prefill(0, [1] * 25)


@pytest.mark.parametrize("slots", [[0, 2], [1, 0], [4], [-1], []])
def test_slots_that_are_no_run_are_refused(folder, load, slots):
    model = load(folder)
    for slot in range(4):
        model.prefill(slot, PROMPT)
    with pytest.raises(InvalidInputError, match="neighbours"):
        model.decode(slots, [1] * len(slots))


def test_an_empty_slot_cannot_be_decoded(folder, load):
    with pytest.raises(InvalidInputError, match="hold 0"):
        load(folder).decode([0], [1])


def test_sizes_count_buffers_and_weights(folder, load):
    model = load(folder)
    # 2 layers, key and value, 4 slots, 2 heads, 96 tokens, 16 numbers of 4 bytes
    assert model.kv_bytes == 2 * 2 * 4 * 2 * 96 * 16 * 4
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
