"""Quantised weights on disk, by the digest of the file they were made from. It knows files, not what is in them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from shammah_generator.arrays import Array
from shammah_generator.precision import BLOCK, Precision

_FORMAT = f"b{BLOCK}-2"
CACHED_VERSIONS = 4
"""Quantised files kept in the cache folder: champion, previous, candidate and one more."""


def name_cache_file(cache_dir: Path, digest: str, precision: Precision, *, packed: bool = False) -> Path:
    """Return where the quantised (and `packed`) weights of a source file with this sha256 are kept."""
    kind = f"{precision}-packed" if packed else precision
    return cache_dir / f"{digest}.{kind}.{_FORMAT}.safetensors"


def read_cache(cache: Path) -> dict[str, Array] | None:
    """Return the cached arrays, or None where there is no whole file (it is then made anew)."""
    try:
        weights: dict[str, Array] = load_file(cache)
        cache.touch()  # the pruning below goes by last use
    except (OSError, SafetensorError):
        return None
    return weights


def write_cache(cache: Path, weights: Mapping[str, Array]) -> None:
    """Write aside and rename, then drop the files that were used longest ago."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=cache.parent, suffix=".aside")
    os.close(handle)
    try:
        save_file(dict(weights), aside)
        os.replace(aside, cache)
    finally:
        Path(aside).unlink(missing_ok=True)
    others = sorted(cache.parent.glob(f"*.{_FORMAT}.safetensors"), key=lambda path: path.stat().st_mtime)
    for old in others[:-CACHED_VERSIONS]:
        old.unlink(missing_ok=True)
