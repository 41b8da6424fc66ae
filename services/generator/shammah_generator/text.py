"""From tokens to text while they come: whole characters only, and never a part of a stop string.

It knows a tokenizer and strings. Special tokens never become text.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

_REPLACEMENT = "\ufffd"


class TextStream:
    """The text of one response, given out as far as it is certain."""

    def __init__(self, tokenizer: Tokenizer, *, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._start = 0  # first token of the window that is decoded again with each new token
        self._known = 0  # window's tokens before this one are settled; they only give the right spacing
        self._given = 0  # characters of the tokens after it that are out already
        self._held = ""
        self.stopped = False

    def push(self, *tokens: int) -> str:
        """Take tokens and return the text that is certain now; `stopped` tells whether a stop string was met."""
        self._ids.extend(tokens)
        return self._cut(self._advance())

    def flush(self) -> str:
        """Return what was held back, at the end of a response; half a character is dropped."""
        if self.stopped:
            return ""
        out = self._cut(self._advance()) + self._held
        self._held = ""
        return out

    def _advance(self) -> str:
        """Return the new characters that no later token can change."""
        settled = len(self._decode(self._start, self._known))
        text = self._decode(self._start, len(self._ids))[settled:]
        # A replacement character at the end may be the first bytes of one that is still to come.
        whole = text.rstrip(_REPLACEMENT)
        new = whole[self._given :]
        self._given = len(whole)
        if len(whole) == len(text):
            self._start, self._known, self._given = self._known, len(self._ids), 0
        return new

    def _decode(self, start: int, end: int) -> str:
        text: str = self._tokenizer.decode(self._ids[start:end], skip_special_tokens=True)
        return text

    def _cut(self, new: str) -> str:
        """Return `new` and what was held, up to a stop string or to what might become one."""
        text = self._held + new
        places = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if places:
            self.stopped = True
            self._held = ""
            return text[: min(places)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return how many last characters of `text` could be the start of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
