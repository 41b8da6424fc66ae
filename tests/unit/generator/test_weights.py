from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from safetensors.torch import load_file
from shammah_chassis.manifest import load_json
from shammah_generator.architecture import Architecture
from shammah_generator.graph import build_graph
from shammah_generator.precision import PRECISIONS
from shammah_generator.weight_cache import CACHED_VERSIONS, name_cache_file
from shammah_generator.weights import check_weights, read_weights


@pytest.fixture
def read(folder):
    architecture = Architecture.from_config(load_json(folder / "config.json"))

    def read_them(precision="int8", **settings):
        path = folder / "model.safetensors"
        return read_weights(path, architecture, precision=precision, threads=1, **settings)

    return read_them


def test_a_tied_head_is_the_embedding_unless_a_gain_was_folded_into_it(read):
    assert "head" not in read("fp32")
    shared = read("int8")
    assert np.shares_memory(shared["head.quants"], shared["embedding.quants"])
    weights = read("int8_fast")
    assert not np.shares_memory(weights["head.quants"], weights["embedding.quants"])
    assert (weights["final.norm"] == 1).all()


def test_query_key_and_value_become_one_product(read, folder):
    source = load_file(folder / "model.safetensors")
    joined = np.concatenate(
        [source[f"model.layers.0.self_attn.{name}_proj.weight"].numpy() for name in ("q", "k", "v")]
    )
    assert np.array_equal(read("fp32")["layers.0.qkv.transposed"], joined.T)


def test_cached_weights_equal_fresh_ones(read, tmp_path):
    cache = name_cache_file(tmp_path / "new folder", "abc", "int8")
    fresh = read(cache=cache)
    stamp = cache.stat().st_ino
    cached = read(cache=cache)
    assert cache.stat().st_ino == stamp
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]
    assert fresh.keys() == cached.keys()
    for name, value in fresh.items():
        assert np.array_equal(value, cached[name])


def test_a_broken_cache_file_is_made_anew(read, tmp_path):
    cache = name_cache_file(tmp_path, "abc", "int8")
    read(cache=cache)
    whole = cache.read_bytes()
    cache.write_bytes(whole[:100])
    read(cache=cache)
    assert cache.read_bytes() == whole


def test_the_cache_keeps_only_the_files_used_last(read, tmp_path):
    (tmp_path / "another program's file").touch()
    caches = [name_cache_file(tmp_path, str(number), "int8") for number in range(CACHED_VERSIONS + 1)]
    for age, cache in enumerate(caches[:-1]):
        read(cache=cache)
        os.utime(cache, (1000 + age, 1000 + age))
    read(cache=caches[0])  # used again: no longer the oldest
    read(cache=caches[-1])
    assert [cache.exists() for cache in caches] == [True, False, True, True, True]
    assert (tmp_path / "another program's file").exists()


def test_each_precision_has_cached_weights_of_its_own(read, tmp_path):
    caches = {precision: name_cache_file(tmp_path, "abc", precision) for precision in ("int8", "int8_fast")}
    fresh = {precision: read(precision, cache=cache) for precision, cache in caches.items()}
    assert len({cache.name for cache in caches.values()}) == 2
    for precision, cache in caches.items():
        again = read(precision, cache=cache)
        assert all(np.array_equal(value, again[name]) for name, value in fresh[precision].items())
    down = "layers.0.down.quants"
    assert (fresh["int8"][down].dtype, fresh["int8_fast"][down].dtype) == (np.uint8, np.int8)


def test_what_a_precision_shares_with_no_other_is_written_to_no_cache(read, tmp_path):
    read("fp32", cache=name_cache_file(tmp_path, "abc", "fp32"))
    assert not list(tmp_path.iterdir())


def test_a_graph_of_each_precision_gets_every_weight_that_it_declares(read, folder):
    architecture = Architecture.from_config(load_json(folder / "config.json"))
    for precision in PRECISIONS:
        graph = build_graph(architecture, precision=precision).graph
        declared = {one.name: tuple(one.dims) for one in graph.initializer if one.external_data}
        weights = read(precision)
        check_weights(weights, declared)
        assert weights.keys() == declared.keys()
        for one in graph.initializer:
            if one.external_data:
                assert weights[one.name].dtype == onnx.helper.tensor_dtype_to_np_dtype(one.data_type)
