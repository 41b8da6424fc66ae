"""The secrets of one data folder: made at the first start, kept afterwards, readable by their owner only.

What people granted to others (`shammah tokens`) stays as it is.
"""

from __future__ import annotations

import secrets

from shammah_chassis.token_book import DEFAULT_GRANTS, TokenBook, write_private
from shammah_chassis.tokens import hash_token

from shammah_local.layout import Layout


def ensure_tokens(layout: Layout) -> str:
    """Make our own tokens and their files if any is missing or does not fit; return the token of NATS.

    Raises:
        InvalidInputError: the table is there but can't be read.
    """
    book = TokenBook(layout.tokens_file)
    known = {entry.name: entry for entry in book.list()} if layout.tokens_file.is_file() else {}
    for name, scopes in DEFAULT_GRANTS.items():
        path = layout.token_file(name)
        # A kill may have come between the table and the file, and a later version may give us more scopes.
        fits = name in known and path.is_file() and hash_token(path.read_text("utf-8").strip()) == known[name].sha256
        if not fits or known[name].scopes != frozenset(scopes):
            write_private(path, book.renew(name, scopes) + "\n")
    path = layout.token_file("nats")
    if not path.is_file():
        write_private(path, secrets.token_urlsafe(32) + "\n")
    return path.read_text("utf-8").strip()
