"""From `model.safetensors` (Hugging Face names) to the arrays that a graph template declares.

Joins what the graph joins, rotates, transposes, quantises or packs as the precision's plan says, checks shapes.
Quantised weights are cached (`weight_cache`) by the digest of their source file. It knows names and shapes; it runs no
model.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from shammah_chassis.errors import ArtifactError

from shammah_generator.architecture import Architecture
from shammah_generator.arrays import Array, Floats
from shammah_generator.native import Library
from shammah_generator.packing import count_packed, lay_out, pack, read_scales, stores_head
from shammah_generator.pages import make_zeros
from shammah_generator.precision import PLANS, Precision, Scheme
from shammah_generator.quantise import quantise, quantise_rows
from shammah_generator.rotation import Rotation
from shammah_generator.tensors import SafetensorsFile
from shammah_generator.weight_cache import read_cache, write_cache

PACKED = "packed"
"""The name of all packed weights, one array of bytes (see `packing.lay_out`)."""
_POLITE = 15
"""Niceness of threads that load: beside two that compute, they get a thirtieth of the time and what is left over."""
_Joined = tuple[str, str, list[tuple[str, tuple[int, int]]]]
"""A product's name in the graph, its kind, and the Hugging Face tensors that are its rows."""


def read_weights_politely(
    path: Path,
    architecture: Architecture,
    *,
    precision: Precision,
    threads: int,
    cache: Path | None = None,
    library: Library | None = None,
    by_rows: bool = False,
) -> dict[str, Array]:
    """As `read_weights`, in threads that give way to all others: another version may be answering meanwhile."""
    work = partial(
        read_weights,
        path,
        architecture,
        precision=precision,
        threads=threads,
        cache=cache,
        library=library,
        by_rows=by_rows,
    )
    # A thread of its own, as it can't raise its priority again; those that it starts inherit it.
    with ThreadPoolExecutor(1, thread_name_prefix="weights", initializer=_give_way) as pool:
        return pool.submit(work).result()


def read_weights(
    path: Path,
    architecture: Architecture,
    *,
    precision: Precision,
    threads: int,
    cache: Path | None = None,
    library: Library | None = None,
    by_rows: bool = False,
) -> dict[str, Array]:
    """Return every array that the graph of `precision` needs, by its name in the graph.

    Args:
        path: `model.safetensors`.
        architecture: the shapes that the tensors must have.
        precision: one of `PRECISIONS`.
        threads: threads that convert.
        cache: file that holds (or will hold) the quantised weights; None quantises anew.
        library: for the graph of our own operators (`graph_native`), which takes packed weights; None for the other.
        by_rows: of plain weights, the transposed ones are views of arrays that lie by rows, for who turns them back.

    Raises:
        ArtifactError: a tensor is missing or has another shape (the message names it and both shapes), or is to be
            quantised and not finite.
    """
    plan = PLANS[precision]
    if library is not None:
        weights = _read_packed(path, architecture, precision, threads=threads, cache=cache, library=library)
    elif not plan.quantised:
        kind = np.float16 if plan.half else np.float32
        weights = _make_plain(path, architecture, kind, threads=threads, by_rows=by_rows)
    else:
        cached = read_cache(cache) if cache else None
        weights = cached or _Quantiser(path, architecture, precision=precision).make(threads)
        if cache and cached is None:
            write_cache(cache, weights)
        if architecture.tied and plan.linears["head"] == "block" and not plan.rotated:
            # Two names, one memory: the head's blocks are the embedding's rows.
            weights["head.quants"] = weights["embedding.quants"]
            weights["head.scales"] = weights["embedding.scales"]
        table = weights["embedding.quants"]
        weights["embedding.quants"] = table.reshape(len(table), -1)
    cos, sin = architecture.compute_rotary_tables()
    kind = np.float16 if plan.half else np.float32
    return {**weights, "cos": cos.astype(kind), "sin": sin.astype(kind)}


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


def _give_way() -> None:
    if sys.platform == "linux":  # elsewhere a priority is that of the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _POLITE)


def _list_linears(a: Architecture) -> Iterator[_Joined]:
    """Yield the products of all layers."""
    for i in range(a.layers):
        head, attention = f"model.layers.{i}", f"model.layers.{i}.self_attn"
        yield (
            f"layers.{i}.qkv",
            "qkv",
            [
                (f"{attention}.q_proj.weight", (a.query_width, a.hidden)),
                (f"{attention}.k_proj.weight", (a.kv_width, a.hidden)),
                (f"{attention}.v_proj.weight", (a.kv_width, a.hidden)),
            ],
        )
        yield f"layers.{i}.attention", "attention", [(f"{attention}.o_proj.weight", (a.hidden, a.query_width))]
        for name in ("gate", "up"):
            yield f"layers.{i}.{name}", name, [(f"{head}.mlp.{name}_proj.weight", (a.intermediate, a.hidden))]
        yield f"layers.{i}.down", "down", [(f"{head}.mlp.down_proj.weight", (a.hidden, a.intermediate))]


def _read_norms(file: SafetensorsFile, a: Architecture) -> dict[str, Floats]:
    names = {"final.norm": "model.norm.weight"}
    for i in range(a.layers):
        names[f"layers.{i}.norm"] = f"model.layers.{i}.input_layernorm.weight"
        names[f"layers.{i}.mlp.norm"] = f"model.layers.{i}.post_attention_layernorm.weight"
    # Copied, so that nothing small keeps a map of the file open.
    return {ours: file.read(theirs, (a.hidden,)).copy() for ours, theirs in names.items()}


def _read_table(file: SafetensorsFile, a: Architecture) -> Floats:
    return file.read("model.embed_tokens.weight", (a.vocab, a.hidden))


def _read_head(file: SafetensorsFile, a: Architecture) -> Floats:
    return _read_table(file, a) if a.tied else file.read("lm_head.weight", (a.vocab, a.hidden))


def _read_joined(file: SafetensorsFile, parts: list[tuple[str, tuple[int, int]]]) -> Floats:
    read = [file.read(name, shape) for name, shape in parts]
    return read[0] if len(read) == 1 else np.concatenate(read)


def _require_finite(name: str, values: Array) -> None:
    """Refuse what is no number: as integers such weights would give answers that look sound."""
    if not np.isfinite(values).all():
        raise ArtifactError(f"the weights of {name!r} are not all finite numbers")


def _make_plain(
    path: Path, a: Architecture, kind: type[np.floating], *, threads: int, by_rows: bool
) -> dict[str, Array]:
    file = SafetensorsFile(path)

    def convert(linear: _Joined) -> tuple[str, Array]:
        name, _, parts = linear
        turned = _read_joined(file, parts).astype(kind).T
        return f"{name}.transposed", turned if by_rows else np.ascontiguousarray(turned)

    weights: dict[str, Array] = {name: gain.astype(kind) for name, gain in _read_norms(file, a).items()}
    weights["embedding"] = _read_table(file, a).astype(kind)
    if not a.tied:
        weights["head"] = _read_head(file, a).astype(kind)
    with ThreadPoolExecutor(threads, thread_name_prefix="convert") as pool:
        weights.update(pool.map(convert, _list_linears(a)))
    return weights


def _read_packed(
    path: Path, a: Architecture, precision: Precision, *, threads: int, cache: Path | None, library: Library
) -> dict[str, Array]:
    found = read_cache(cache) if cache else None
    if found is not None and PACKED in found and len(found[PACKED]) == count_packed(a, precision):
        # From the file's memory to large pages.
        packed = make_zeros(found[PACKED].shape, np.uint8)
        packed[...] = found[PACKED]
        return {**found, PACKED: packed}
    weights = _Quantiser(path, a, precision=precision).pack(library, threads)
    if cache:
        write_cache(cache, weights)
    return weights


class _Quantiser:
    """Makes the arrays of a quantised precision from one file."""

    def __init__(self, path: Path, architecture: Architecture, *, precision: Precision) -> None:
        self._file = SafetensorsFile(path)
        self._architecture = a = architecture
        self._precision = precision
        self._plan = PLANS[precision]
        self._norms = _read_norms(self._file, a)
        self._rotation = Rotation(a.hidden, a.head_dim) if self._plan.rotated else None

    def make(self, threads: int) -> dict[str, Array]:
        weights: dict[str, Array] = {}
        for name, gain in self._norms.items():
            _require_finite(name, gain)
        with ThreadPoolExecutor(threads, thread_name_prefix="quantise") as pool, np.errstate(invalid="ignore"):
            for name, scheme, weight in self._list_weights():
                make = quantise_rows if scheme == "row" else quantise
                quants, scales = make(weight, pool=pool)
                _require_finite(name, scales)
                weights[f"{name}.quants"], weights[f"{name}.scales"] = quants, scales
        return weights | self._list_gains()

    def pack(self, library: Library, threads: int) -> dict[str, Array]:
        """As `make`, in the form of our own operators."""
        for name, gain in self._norms.items():
            _require_finite(name, gain)
        places = lay_out(self._architecture, self._precision)
        packed: Array = make_zeros((count_packed(self._architecture, self._precision),), np.uint8)
        with ThreadPoolExecutor(threads, thread_name_prefix="pack") as pool:
            for name, _, weight in self._list_weights():
                place = places[name]
                part = packed[place.at : place.end].reshape(place.shape)
                pack(weight, part, library=library, pool=pool)
                _require_finite(name, read_scales(part))
        return {PACKED: packed, **self._list_gains()}

    def _list_gains(self) -> dict[str, Array]:
        if self._rotation is None:
            return dict(self._norms)
        return dict.fromkeys(self._norms, np.ones(self._architecture.hidden, np.float32))

    def _list_weights(self) -> Iterator[tuple[str, Scheme, Floats]]:
        a, file, rotation = self._architecture, self._file, self._rotation
        table = _read_table(file, a)
        yield "embedding", "block", table if rotation is None else rotation.rotate_table(table)
        if stores_head(a, self._plan):
            head = _read_head(file, a)
            gain = self._norms["final.norm"]
            yield "head", self._plan.linears["head"], head if rotation is None else rotation.rotate_reader(head, gain)
        for name, kind, parts in _list_linears(a):
            weight = _read_joined(file, parts)
            yield (
                name,
                self._plan.linears[kind],
                (weight if rotation is None else self._rotate(rotation, name, kind, weight)),
            )

    def _rotate(self, rotation: Rotation, name: str, kind: str, weight: Floats) -> Floats:
        a = self._architecture
        layer = name.rpartition(".")[0]
        if kind == "qkv":
            values = a.query_width + a.kv_width
            weight = np.concatenate([weight[:values], rotation.rotate_values(weight[values:])])
            return rotation.rotate_reader(weight, self._norms[f"{layer}.norm"])
        if kind in ("gate", "up"):
            return rotation.rotate_reader(weight, self._norms[f"{layer}.mlp.norm"])
        if kind == "attention":
            weight = rotation.rotate_mixer(weight)
        return rotation.rotate_writer(weight)
