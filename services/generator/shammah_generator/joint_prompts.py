"""Prompts of rollouts that are computed together: on a GPU a prompt is launches, and many take as long as one.

All tokens of a prompt but the last are computed; with the last the response joins the rows that decode, and the next
step tells its first token. So prompts of several lengths need nothing but padding behind: what lies there is
overwritten as the row grows. It knows the model and who waits, not what becomes of a response afterwards.
"""

from __future__ import annotations

import logging
from collections import deque
from threading import Condition
from time import monotonic

from shammah_generator.sequence import GrowingResponse
from shammah_generator.stepping import Model

_LOG = logging.getLogger(__name__)
_LEAST = 2  # prompts; one alone is computed whole


class JointPrompts:
    """Takes responses from the front of `waiting`, which is guarded by `changed`."""

    def __init__(self, model: Model, waiting: deque[GrowingResponse], changed: Condition) -> None:
        """Works where the model does it, and where nobody waits for the next token of a row."""
        self._model = model
        self._waiting = waiting
        self._changed = changed
        self.works = model.joint_tokens > 0 and model.prompts_a_turn >= model.slots

    def begin(self, rows: list[GrowingResponse], *, most: int) -> None:
        """Make rows of those that wait, behind the rows that there are, up to `most` rows in all.

        If that fails once it is not tried again: they wait as before, and each prompt is computed alone.
        """
        while self.works and (chosen := self._choose(most - len(rows))):
            try:
                begun = self._model.prefill_rows(len(rows), [response.prompt for response in chosen])
            except Exception as error:  # whatever the session raises
                _LOG.warning("prompts can't be computed together, from now on one at a time", exc_info=error)
                self.works, begun = False, 0
            for response in chosen[:begun]:
                response.started_at = monotonic()
            rows += chosen[:begun]
            with self._changed:
                self._waiting.extendleft(reversed(chosen[begun:]))

    def _choose(self, most: int) -> list[GrowingResponse]:
        """Take as many as may be computed together; none where that would be one."""
        chosen: list[GrowingResponse] = []
        longest = 0
        with self._changed:
            while self._waiting and len(chosen) < most:
                length = len(self._waiting[0].prompt) - 1
                longest = max(longest, length)
                if not length or longest * (len(chosen) + 1) > self._model.joint_tokens:
                    break
                chosen.append(self._waiting.popleft())
            if len(chosen) >= _LEAST:
                return chosen
            self._waiting.extendleft(reversed(chosen))
        return []
