"""Jobs for tests: one that ends at once, one that never does, and the start after a kill."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from shammah_chassis.scopes import Caller
from shammah_gateway.job_record import JobRecord
from shammah_gateway.jobs import JobBook, Progress, Work

OWNER = Caller("owner", frozenset({"ask", "train"}))


async def succeed(progress: Progress) -> dict[str, Any]:
    progress.report(0.5, "half")
    return {"answer": 42}


async def hang(progress: Progress) -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


async def begin(book: JobBook, run: Callable[[Progress], Awaitable[dict[str, Any]]] = hang, **how: Any) -> JobRecord:
    """Start a job and let its work take the first step."""
    record = book.start("train", OWNER, Work(run), **how)
    await asyncio.sleep(0)
    return record


def open_again(folder: Path, run: Callable[[Progress], Awaitable[dict[str, Any]]] = hang) -> JobBook:
    """A book on the same folder, as after a kill: the one before was never closed."""
    book = JobBook(folder)
    book.resume(lambda record: Work(run))
    return book
