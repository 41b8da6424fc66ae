"""Normalised text of a query: what decides its part, its cluster and whether two queries are the same.

It does not know examples, parts or hashes of them.
"""

from __future__ import annotations

import re
import unicodedata

# Letters and digits of any script (no underscore), or one of the signs that carry meaning in a question.
_TOKEN = re.compile(r"[^\W_]+|[+\-*/=<>%$]")


def split_tokens(text: str) -> list[str]:
    """Return the normalised tokens of `text` in order: NFKC, lower-case, alphanumeric runs and signs."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())


def normalise_query(text: str) -> str:
    """Return the tokens of `text` joined by one space; "" when it has no letter, digit or sign.

    This is the normal form of the public data's splits (NFKC, lower-case, alphanumeric tokens and
    `+ - * / = < > % $`), so a query that is in their test part can be recognised.
    """
    return " ".join(split_tokens(text))


def collapse_whitespace(text: str) -> str:
    """Return `text` stripped, lower-cased, each run of whitespace as one space."""
    return " ".join(text.lower().split())
