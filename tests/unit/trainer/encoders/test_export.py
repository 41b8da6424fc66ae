from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from shammah_chassis.errors import ArtifactError
from shammah_trainer.encoders.base import ROUTER_GRAPH, VALIDATOR_GRAPH, load_router, load_validator, sample_pairs
from shammah_trainer.encoders.export import Sample, check_parity, finish_graph, reuse_graph
from shammah_trainer.encoders.storage import load_version, read_layout, save_version
from support.encoders import base_router, base_validator

TEXTS = Sample(["a dog", "book a table for two people at seven in the evening", "yes " * 60], 256, {})


def save_changed(out: Path) -> torch.nn.Module:
    """Save a router with other weights than its parent; returns the network."""
    network, stored = load_router(base_router()[0])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    tokenizer = base_router()[0] / "tokenizer.json"
    save_version(out, network.state_dict(), config=stored.config, labels=("x" * 9,), tokenizer=tokenizer)
    return network


def strip_offsets(path: Path) -> bytes:
    model = onnx.load(str(path), load_external_data=False)
    for initializer in model.graph.initializer:
        initializer.ClearField("external_data")
    return model.SerializeToString()


def test_graphs_of_release_0_say_what_the_networks_say_for_any_batch_and_length() -> None:
    assert check_parity(load_router(base_router()[0])[0], ROUTER_GRAPH, base_router()[0], TEXTS) <= 1e-4
    network, folder = load_validator(base_validator()[0])[0], base_validator()[0]
    for count in (1, 3):
        pairs = tuple(("my card " * (number + 1), "yes no " * number) for number in range(count))
        assert check_parity(network, VALIDATOR_GRAPH, folder, sample_pairs(pairs, max_tokens=512)) <= 1e-4


def test_a_new_version_reuses_the_graph_of_its_parent_with_its_own_weights(tmp_path: Path) -> None:
    network = save_changed(tmp_path)
    assert finish_graph(network, ROUTER_GRAPH, parent=base_router()[0], folder=tmp_path, sample=TEXTS) <= 1e-4
    assert strip_offsets(tmp_path / "graph.onnx") == strip_offsets(base_router()[0] / "graph.onnx")


def test_graph_and_network_with_other_weights_are_told_apart(tmp_path: Path) -> None:
    network = save_changed(tmp_path)
    with pytest.raises(ArtifactError, match="differs"):
        check_parity(network, ROUTER_GRAPH, base_router()[0], TEXTS)


def test_without_a_usable_graph_of_the_parent_the_network_is_traced_again(tmp_path: Path) -> None:
    parent, out = tmp_path / "parent", tmp_path / "out"
    shutil.copytree(base_router()[0], parent)
    # The validator's graph stands where the router's should be.
    shutil.copyfile(base_validator()[0] / "graph.onnx", parent / "graph.onnx")
    network = save_changed(out)
    with pytest.raises(ArtifactError):
        reuse_graph(parent, out)
    assert finish_graph(network, ROUTER_GRAPH, parent=parent, folder=out, sample=TEXTS) <= 1e-4


def test_a_graph_holds_no_weights_and_no_path_of_the_machine_that_traced_it() -> None:
    data = (base_router()[0] / "graph.onnx").read_bytes()
    assert len(data) < 300_000
    assert str(Path(__file__).parents[4]).encode() not in data


def test_the_layout_names_the_bytes_of_each_weight(tmp_path: Path) -> None:
    save_changed(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_version(tmp_path, kind="router").weights
    for name, (shape, offset, length) in read_layout(path).items():
        found = np.frombuffer(path.read_bytes()[offset : offset + length], dtype=np.float32).reshape(shape)
        np.testing.assert_array_equal(found, weights[name].numpy())


def test_a_version_of_another_role_is_refused() -> None:
    with pytest.raises(ArtifactError, match="wanted a validator"):
        load_validator(base_router()[0])
