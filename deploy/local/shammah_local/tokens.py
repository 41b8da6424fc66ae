"""The secrets of one data folder: made at the first start, kept afterwards, readable by their owner only."""

from __future__ import annotations

import secrets

from shammah_chassis.scopes import TokenTable, hash_token, write_private, write_tokens

from shammah_local.layout import Layout

_NAMES = ("owner", "internal")


def ensure_tokens(layout: Layout) -> str:
    """Make the table of tokens and the token files if any is missing or does not fit; return the token of NATS.

    Raises:
        InvalidInputError: the table is there but can't be read.
    """
    if not _fit(layout):
        for name, token in write_tokens(layout.tokens_file).items():
            write_private(layout.token_file(name), token + "\n")
    path = layout.token_file("nats")
    if not path.is_file():
        write_private(path, secrets.token_urlsafe(32) + "\n")
    return path.read_text("utf-8").strip()


def _fit(layout: Layout) -> bool:
    """Say whether the table and the clear tokens are there and belong together; a kill may have come between them."""
    if not layout.tokens_file.is_file():
        return False
    TokenTable.load(layout.tokens_file)
    table = layout.tokens_file.read_text("utf-8")
    files = [layout.token_file(name) for name in _NAMES]
    return all(path.is_file() and hash_token(path.read_text("utf-8").strip()) in table for path in files)
