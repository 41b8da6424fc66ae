"""Processes that compile for a training, begun before it is there: while weights are loaded and rows are encoded.

They take some ten seconds to get ready. What is known that early are the device, the hyper-parameters and about how
much text there is; whether the training uses them it says itself, and ends them where not. It knows no rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from shammah_trainer.cache_filler import CacheFiller, has_room
from shammah_trainer.hyper import SftHyper

COMPILE_TOKENS = 4_000_000  # compiling takes some ten seconds; below this an eager run is over sooner
_CHARACTERS = 4  # of text a token; a chat's template adds some to each row
_SIZE_BYTES = 4


@contextmanager
def fill_ahead(device: torch.device, *, wanted: bool) -> Iterator[CacheFiller | None]:
    """Start the processes where they are `wanted` and can be had; they have ended when this is left, however it is.

    Where there are none, a training that could use some starts its own, and says why it can't.
    """
    filler = _begin(device) if wanted else None
    try:
        # Asking starts this process' own part of the device; they reach it only after they have loaded torch.
        if filler is not None and not has_room(device):
            filler.close()
        yield filler
    finally:
        if filler is not None:
            filler.close()


def compiles_behind(hyper: SftHyper, device: torch.device, *, tokens: int) -> bool:
    """Whether a training of so many tokens, all epochs together, has its blocks compiled beside its steps."""
    return device.type == "cuda" and hyper.compile_mode == "auto" and tokens >= COMPILE_TOKENS


def guess_tokens(characters: int, hyper: SftHyper) -> int:
    """Return about how many tokens a training on so much text computes."""
    return characters // _CHARACTERS * hyper.epochs


def read_size(path: Path) -> int:
    """Return how many bytes (up to 4 GiB) a gzip file holds, as its end says (RFC 1952); 0 where there is none."""
    if not path.is_file() or path.stat().st_size < _SIZE_BYTES:
        return 0
    with path.open("rb") as file:
        file.seek(-_SIZE_BYTES, 2)
        return int.from_bytes(file.read(), "little")


def _begin(device: torch.device) -> CacheFiller | None:
    try:
        return CacheFiller(device)
    except OSError:
        return None
