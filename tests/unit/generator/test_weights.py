from __future__ import annotations

import os

import numpy as np
import pytest
from safetensors.torch import load_file
from shammah_chassis.manifest import load_json
from shammah_generator.architecture import Architecture
from shammah_generator.weights import CACHED_VERSIONS, name_cache_file, read_weights


@pytest.fixture
def read(folder):
    architecture = Architecture.from_config(load_json(folder / "config.json"))

    def read_them(precision="int8", **settings):
        path = folder / "model.safetensors"
        return read_weights(path, architecture, precision=precision, threads=1, **settings)

    return read_them


def test_a_tied_head_shares_the_memory_of_the_embedding(read):
    weights = read()
    assert np.shares_memory(weights["head.quants"], weights["embedding.quants"])
    assert "head" not in read("fp32")


def test_query_key_and_value_become_one_product(read, folder):
    source = load_file(folder / "model.safetensors")
    joined = np.concatenate(
        [source[f"model.layers.0.self_attn.{name}_proj.weight"].numpy() for name in ("q", "k", "v")]
    )
    assert np.array_equal(read("fp32")["layers.0.qkv.transposed"], joined.T)


def test_cached_weights_equal_fresh_ones(read, tmp_path):
    cache = name_cache_file(tmp_path / "new folder", "abc")
    fresh = read(cache=cache)
    stamp = cache.stat().st_ino
    cached = read(cache=cache)
    assert cache.stat().st_ino == stamp
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]
    assert fresh.keys() == cached.keys()
    for name, value in fresh.items():
        assert np.array_equal(value, cached[name])


def test_a_broken_cache_file_is_made_anew(read, tmp_path):
    cache = name_cache_file(tmp_path, "abc")
    read(cache=cache)
    whole = cache.read_bytes()
    cache.write_bytes(whole[:100])
    read(cache=cache)
    assert cache.read_bytes() == whole


def test_the_cache_keeps_only_the_files_used_last(read, tmp_path):
    (tmp_path / "another program's file").touch()
    caches = [name_cache_file(tmp_path, str(number)) for number in range(CACHED_VERSIONS + 1)]
    for age, cache in enumerate(caches[:-1]):
        read(cache=cache)
        os.utime(cache, (1000 + age, 1000 + age))
    read(cache=caches[0])  # used again: no longer the oldest
    read(cache=caches[-1])
    assert [cache.exists() for cache in caches] == [True, False, True, True, True]
    assert (tmp_path / "another program's file").exists()
