"""What is outside the certificate whatever the scores say: those queries are forwarded, reason `uncertified`.

Cheap tests on the query alone. It knows neither the roles nor the release.
"""

from __future__ import annotations

import unicodedata

# A query with more than this share of letters outside the Latin script counts as another language: the exam rows
# that certify a release are in Latin script, and a name or a symbol of another one is not yet another language.
FOREIGN_SHARE = 0.3


def is_uncertified(text: str, temperature: float) -> bool:
    """Say whether a query is outside the certificate: sampled, or in another script.

    The certificate is for greedy responses (temperature 0) to queries like those of the exam.
    """
    return temperature > 0.0 or foreign_share(text) > FOREIGN_SHARE


def foreign_share(text: str) -> float:
    """Return the share of the letters that are not of the Latin script; 0.0 for a text without letters."""
    if text.isascii():
        return 0.0
    letters = [char for char in text if char.isalpha()]
    if not letters:
        return 0.0
    foreign = sum(1 for char in letters if not char.isascii() and not unicodedata.name(char, "").startswith("LATIN"))
    return foreign / len(letters)
