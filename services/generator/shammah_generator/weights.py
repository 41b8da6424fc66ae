"""From `model.safetensors` (Hugging Face names) to the arrays that a graph template declares.

Joins what the graph joins, transposes or quantises, and checks every shape. Quantised weights are cached by the digest
of their source file. It knows names and shapes; it runs no model.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from shammah_chassis.errors import ArtifactError

from shammah_generator.architecture import Architecture
from shammah_generator.arrays import Array, Floats
from shammah_generator.graph import BLOCK, Precision
from shammah_generator.quantise import quantise
from shammah_generator.tensors import SafetensorsFile

CACHE_FORMAT = f"int8-b{BLOCK}-1"
CACHED_VERSIONS = 4
"""Quantised files kept in the cache folder: champion, previous, candidate and one more."""


def read_weights(
    path: Path,
    architecture: Architecture,
    *,
    precision: Precision,
    threads: int,
    cache: Path | None = None,
) -> dict[str, Array]:
    """Return every array that the graph of `precision` needs, by its name in the graph.

    Args:
        path: `model.safetensors`.
        architecture: the shapes that the tensors must have.
        precision: "fp32" or "int8".
        threads: threads that quantise.
        cache: file that holds (or will hold) the quantised weights; None quantises anew.

    Raises:
        ArtifactError: a tensor is missing or has another shape; the message names it and both shapes.
    """
    if precision == "fp32":
        weights = _make_fp32(path, architecture)
    else:
        cached = _read_cache(cache) if cache else None
        weights = cached or _make_int8(path, architecture, threads=threads)
        if cache and cached is None:
            _write_cache(cache, weights)
        if architecture.tied:
            # Two names, one memory: the head's blocks are the embedding's rows.
            weights["head.quants"] = weights["embedding.quants"]
            weights["head.scales"] = weights["embedding.scales"]
        table = weights["embedding.quants"]
        weights["embedding.quants"] = table.reshape(len(table), -1)
    weights["cos"], weights["sin"] = architecture.compute_rotary_tables()
    return weights


def check_weights(weights: Mapping[str, Array], declared: Mapping[str, tuple[int, ...]]) -> None:
    """Check that `weights` are what the graph declares.

    Raises:
        ArtifactError: a name is missing or a shape differs; the message names the tensor and both shapes.
    """
    for name, shape in declared.items():
        if name not in weights:
            raise ArtifactError(f"the graph needs tensor {name!r} of {list(shape)}: no such weight")
        found = weights[name].shape
        if found != shape:
            raise ArtifactError(f"tensor {name!r} has shape {list(found)}, the graph needs {list(shape)}")


def name_cache_file(cache_dir: Path, digest: str) -> Path:
    """Return where the quantised weights of a source file with this sha256 are kept."""
    return cache_dir / f"{digest}.{CACHE_FORMAT}.safetensors"


def _list_linears(a: Architecture) -> Iterator[tuple[str, list[tuple[str, tuple[int, int]]]]]:
    """Yield each product's name in the graph, with the Hugging Face tensors that are its rows."""
    for i in range(a.layers):
        head, attention = f"model.layers.{i}", f"model.layers.{i}.self_attn"
        yield (
            f"layers.{i}.qkv",
            [
                (f"{attention}.q_proj.weight", (a.query_width, a.hidden)),
                (f"{attention}.k_proj.weight", (a.kv_width, a.hidden)),
                (f"{attention}.v_proj.weight", (a.kv_width, a.hidden)),
            ],
        )
        out = (f"{attention}.o_proj.weight", (a.hidden, a.query_width))
        yield f"layers.{i}.attention", [out]
        for name in ("gate", "up"):
            inner = (f"{head}.mlp.{name}_proj.weight", (a.intermediate, a.hidden))
            yield f"layers.{i}.{name}", [inner]
        down = (f"{head}.mlp.down_proj.weight", (a.hidden, a.intermediate))
        yield f"layers.{i}.down", [down]


def _read_norms(file: SafetensorsFile, a: Architecture) -> dict[str, Array]:
    names = {"final.norm": "model.norm.weight"}
    for i in range(a.layers):
        names[f"layers.{i}.norm"] = f"model.layers.{i}.input_layernorm.weight"
        names[f"layers.{i}.mlp.norm"] = f"model.layers.{i}.post_attention_layernorm.weight"
    # Copied, so that nothing small keeps a map of the file open.
    return {ours: file.read(theirs, (a.hidden,)).copy() for ours, theirs in names.items()}


def _read_joined(file: SafetensorsFile, parts: list[tuple[str, tuple[int, int]]]) -> Floats:
    read = [file.read(name, shape) for name, shape in parts]
    return read[0] if len(read) == 1 else np.concatenate(read)


def _make_fp32(path: Path, a: Architecture) -> dict[str, Array]:
    file = SafetensorsFile(path)
    weights = _read_norms(file, a)
    weights["embedding"] = file.read("model.embed_tokens.weight", (a.vocab, a.hidden)).copy()
    if not a.tied:
        weights["head"] = file.read("lm_head.weight", (a.vocab, a.hidden)).copy()
    for name, parts in _list_linears(a):
        weights[f"{name}.transposed"] = np.ascontiguousarray(_read_joined(file, parts).T)
    return weights


def _make_int8(path: Path, a: Architecture, *, threads: int) -> dict[str, Array]:
    file = SafetensorsFile(path)
    weights = _read_norms(file, a)
    tables = [("embedding", [("model.embed_tokens.weight", (a.vocab, a.hidden))])]
    if not a.tied:
        tables.append(("head", [("lm_head.weight", (a.vocab, a.hidden))]))
    with ThreadPoolExecutor(threads, thread_name_prefix="quantise") as pool:
        for name, parts in (*tables, *_list_linears(a)):
            joined = _read_joined(file, parts)
            weights[f"{name}.quants"], weights[f"{name}.scales"] = quantise(joined, pool=pool)
    return weights


def _read_cache(cache: Path) -> dict[str, Array] | None:
    """Return the cached arrays, or None where there is no whole file (it is then made anew)."""
    try:
        weights: dict[str, Array] = load_file(cache)
        cache.touch()  # the pruning below goes by last use
    except (OSError, SafetensorError):
        return None
    return weights


def _write_cache(cache: Path, weights: Mapping[str, Array]) -> None:
    """Write aside and rename, then drop the files that were used longest ago."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=cache.parent, suffix=".aside")
    os.close(handle)
    try:
        save_file(dict(weights), aside)
        os.replace(aside, cache)
    finally:
        Path(aside).unlink(missing_ok=True)
    others = sorted(cache.parent.glob(f"*.{CACHE_FORMAT}.safetensors"), key=lambda path: path.stat().st_mtime)
    for old in others[:-CACHED_VERSIONS]:
        old.unlink(missing_ok=True)
