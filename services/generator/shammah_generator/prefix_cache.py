"""Keys and values of prompt beginnings that many requests share, so that they are computed once.

Prompts are cut into blocks of `BLOCK_TOKENS`; a block is known by a digest of all tokens up to its end, as in vLLM's
automatic prefix caching. A block is kept from the second time that it is computed on, so that prompts which come once
cost no copy. Used-longest-ago blocks go first when the budget is full. It knows arrays, not what computed them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from shammah_generator.arrays import Array
from shammah_generator.stepping import Model

BLOCK_TOKENS = 16
_REMEMBERED = 4096


class PrefixCache:
    """The kept blocks of one model.

    Args:
        model: whose slots are read and written.
        budget_bytes: most bytes of kept blocks; 0 keeps none.
    """

    def __init__(self, model: Model, *, budget_bytes: int) -> None:
        self._model = model
        self._budget = budget_bytes
        self._blocks: OrderedDict[bytes, Array] = OrderedDict()
        self._seen: OrderedDict[bytes, None] = OrderedDict()  # computed once so far
        self._bytes = 0
        self.reused_tokens = 0

    @property
    def kept_bytes(self) -> int:
        """Size of the kept blocks."""
        return self._bytes

    def restore(self, slot: int, prompt: Sequence[int]) -> int:
        """Fill a slot with the longest kept beginning of a prompt; returns how many tokens it then holds.

        At least one token is left to compute: its logits are what the response begins with.
        """
        found: list[Array] = []
        for key in self._list_keys(prompt[:-1]):
            block = self._blocks.get(key)
            if block is None:
                break
            self._blocks.move_to_end(key)
            found.append(block)
        if not found:
            return 0
        self._model.write_prefix(slot, 0, np.concatenate(found, axis=2))
        held = len(found) * BLOCK_TOKENS
        self.reused_tokens += held
        return held

    def keep(self, slot: int, prompt: Sequence[int]) -> None:
        """Keep the blocks of a prompt that was computed into a slot, as far as they were seen before."""
        if not self._budget:
            return
        for place, key in enumerate(self._list_keys(prompt)):
            if key in self._blocks:
                continue
            if key in self._seen:
                del self._seen[key]
                start = place * BLOCK_TOKENS
                self._insert(key, self._model.read_prefix(slot, start, start + BLOCK_TOKENS))
            else:
                self._remember(key)

    def _list_keys(self, prompt: Sequence[int]) -> list[bytes]:
        digest = blake2b(digest_size=16)
        keys = []
        whole = len(prompt) - len(prompt) % BLOCK_TOKENS
        for start in range(0, whole if self._budget else 0, BLOCK_TOKENS):
            digest.update(np.asarray(prompt[start : start + BLOCK_TOKENS], np.int64).tobytes())
            keys.append(digest.digest())
        return keys

    def _insert(self, key: bytes, block: Array) -> None:
        if block.nbytes > self._budget:
            return
        self._blocks[key] = block
        self._bytes += block.nbytes
        while self._bytes > self._budget:
            _, old = self._blocks.popitem(last=False)
            self._bytes -= old.nbytes

    def _remember(self, key: bytes) -> None:
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
