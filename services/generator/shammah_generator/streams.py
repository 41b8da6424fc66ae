"""From the engine's thread to the event loop: responses as asynchronous streams that end when nobody listens.

It knows the engine and asyncio, no messages of a transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from shammah_chassis.errors import ShammahError, UnavailableError

from shammah_generator.engine import Engine
from shammah_generator.requests import Chunk, Finish, Request


async def stream_response(engine: Engine, request: Request, *, background: bool = False) -> AsyncGenerator[Chunk, None]:
    """Yield the chunks of one response; those that came while the reader was busy are joined.

    `background` as in `Engine.submit`. The last chunk has `finish`, with reason "stop" or "length".
    Closing the iterator early frees the slot.

    Raises:
        ShammahError: as `Engine.submit`, or what ended the response.
    """
    chunks: asyncio.Queue[Chunk] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    if request.sampling.constraint is not None:
        await asyncio.to_thread(engine.compile, request.sampling.constraint)
    handle = engine.submit(request, lambda chunk: _hand_over(loop, chunks, chunk), background=background)
    try:
        finished = False
        while not finished:
            chunk = await chunks.get()
            while not chunks.empty():
                chunk = join_chunks(chunk, chunks.get_nowait())
            if chunk.finish is not None:
                _require_end(chunk.finish)
                finished = True
            yield chunk
    finally:
        handle.cancel()


async def stream_batch(engine: Engine, requests: Sequence[Request]) -> AsyncGenerator[tuple[int, Chunk], None]:
    """Yield (index, whole response) as each ends, in any order; single calls go before them.

    Closing the iterator early frees all slots.

    Raises:
        ShammahError: as `stream_response`, of the first response that fails; the others are then cancelled.
    """

    async def finish_one(index: int) -> tuple[int, Chunk]:
        return index, await _collect(engine, requests[index])

    tasks = [asyncio.create_task(finish_one(index)) for index in range(len(requests))]
    try:
        for ended in asyncio.as_completed(tasks):
            yield await ended
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def join_chunks(first: Chunk, second: Chunk) -> Chunk:
    """Return two chunks that follow each other as one."""
    return replace(
        second,
        text=first.text + second.text,
        token_ids=first.token_ids + second.token_ids,
        logprobs=first.logprobs + second.logprobs,
    )


async def _collect(engine: Engine, request: Request) -> Chunk:
    whole: Chunk | None = None
    async with aclosing(stream_response(engine, request, background=True)) as chunks:
        async for chunk in chunks:
            whole = chunk if whole is None else join_chunks(whole, chunk)
    if whole is None:
        raise ShammahError("the generator ended a response without a chunk")
    return whole


def _hand_over(loop: asyncio.AbstractEventLoop, chunks: asyncio.Queue[Chunk], chunk: Chunk) -> None:
    """Pass a chunk on; called in the thread of the engine."""
    loop.call_soon_threadsafe(chunks.put_nowait, chunk)


def _require_end(finish: Finish) -> None:
    if finish.error is not None:
        raise finish.error
    if finish.reason == "cancelled":
        # The reader did not: it would not be here.
        raise UnavailableError("the generator is shutting down")
