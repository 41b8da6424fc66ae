"""Where a round stands: phases with their share of the whole, their seconds, and the request to stop.

It knows names and numbers only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from shammah_trainer.problems import StoppedError

Report = Callable[[str, float], None]


class Phases:
    """Times the phases of one round and reports stage text and fraction done."""

    def __init__(
        self, shares: Sequence[tuple[str, float]], report: Report, stop: threading.Event | None = None
    ) -> None:
        """`shares`: each phase in order with its expected share of the time; `stop` set ends the round."""
        total = sum(share for _, share in shares)
        self._starts: dict[str, tuple[float, float]] = {}
        start = 0.0
        for name, share in shares:
            self._starts[name] = (start, share / total)
            start += share / total
        self._report = report
        self._stop = stop or threading.Event()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def run(self, name: str, text: str) -> Iterator[Callable[[float], None]]:
        """Time one phase; yields a function that reports the share of it that is done.

        Raises:
            StoppedError: at its start, or from the yielded function, once `stop` is set.
        """
        start, share = self._starts[name]

        def advance(done: float) -> None:
            if self._stop.is_set():
                raise StoppedError("the round was stopped; its examples stay queued")
            self._report(text, min(1.0, start + share * min(1.0, max(0.0, done))))

        advance(0.0)
        began = time.monotonic()
        try:
            yield advance
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 3)
