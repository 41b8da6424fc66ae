"""Message Batches of the Messages API by the official SDK: made, looked at, read, cancelled. It books nothing.

A batch has no name of ours but the custom ids of its requests, and those can be seen in its results only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from shammah_chassis.errors import TeacherError, TeacherTimeoutError

from shammah_gateway.teachers.batch_desk import BatchLostError, BatchPolicy, BatchResult, BatchUnsureError
from shammah_gateway.teachers.faults import AttemptError
from shammah_gateway.teachers.guard import Guard, Sleep
from shammah_gateway.teachers.ports import Wish
from shammah_gateway.teachers.sdk import call_sdk, read_answer, read_message

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

Got = TypeVar("Got")
# How many of the newest batches are looked through for one whose id was lost.
LOOK_BACK = 100


class MessageBatches:
    """The desk of one teacher; `write` returns the request of a wish, `connect` the client of the SDK."""

    def __init__(
        self,
        name: str,
        *,
        guard: Guard,
        policy: BatchPolicy,
        connect: Callable[[], Awaitable[AsyncAnthropic]],
        write: Callable[[Wish], dict[str, Any]],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.name = name
        self.policy = policy
        self._guard = guard
        self._connect = connect
        self._write = write
        self._sleep = sleep

    async def open(self, wishes: Mapping[str, Wish]) -> str:
        """As `BatchDesk.open`."""
        client = await self._connect()
        requests: list[Any] = [{"custom_id": name, "params": self._write(wish)} for name, wish in wishes.items()]

        async def attempt() -> str:
            try:
                return (await call_sdk(lambda: client.messages.batches.create(requests=requests))).id
            except AttemptError as failed:
                # Not to be tried again blindly: a second batch would be billed as well.
                if failed.fault.unseen:
                    raise BatchUnsureError(f"nobody saw whether the batch was made: {failed}") from failed
                raise

        try:
            return await self._guard.run(attempt)
        except TeacherTimeoutError as late:
            raise BatchUnsureError(f"nobody saw whether the batch was made: {late.message}") from late

    async def find(self, key: str, count: int, since: float) -> str:
        """As `BatchDesk.find`; it waits for the end of batches that may be the one."""
        client = await self._connect()
        page = await self._run(lambda: client.messages.batches.list(limit=LOOK_BACK))
        for batch in page.data:
            if _count(batch) != count or batch.created_at.timestamp() < since:
                continue
            if await self._is_ours(batch.id, key):
                return batch.id
        return ""

    async def look(self, batch: str) -> tuple[bool, str]:
        """As `BatchDesk.look`."""
        client = await self._connect()
        found = await self._run(lambda: client.messages.batches.retrieve(batch))
        done = _count(found) - found.request_counts.processing
        return found.processing_status == "ended", f"{done} of {_count(found)} requests are done"

    async def read(self, batch: str) -> list[BatchResult]:
        """As `BatchDesk.read`."""
        client = await self._connect()

        async def receive() -> list[BatchResult]:
            return [_read_result(row) async for row in await client.messages.batches.results(batch)]

        return await self._run(receive)

    async def cancel(self, batch: str) -> None:
        """As `BatchDesk.cancel`."""
        client = await self._connect()
        await self._run(lambda: client.messages.batches.cancel(batch))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._sleep(seconds)

    async def _is_ours(self, batch: str, key: str) -> bool:
        pause = self.policy.first_pause_seconds
        while not (await self.look(batch))[0]:
            await self._sleep(pause)
            pause = min(1.5 * pause, self.policy.max_pause_seconds)
        return any(result.custom_id.startswith(key) for result in await self.read(batch))

    async def _run(self, call: Callable[[], Awaitable[Got]]) -> Got:
        async def attempt() -> Got:
            try:
                return await call_sdk(call)
            except AttemptError as failed:
                if failed.fault.status == 404:
                    raise BatchLostError(f"teacher {self.name} does not know the batch: {failed}") from failed
                raise

        return await self._guard.run(attempt)


def _count(batch: MessageBatch) -> int:
    counts = batch.request_counts
    return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired


def _read_result(row: MessageBatchIndividualResponse) -> BatchResult:
    result = row.result
    if result.type != "succeeded":
        why = result.error.error.message if result.type == "errored" else ""
        return BatchResult(row.custom_id, problem=f"{result.type} {why}".strip(), again=True)
    reply = read_message(result.message)
    try:
        return BatchResult(row.custom_id, read_answer(reply), model=reply.model, usage=reply.usage)
    except (AttemptError, TeacherError) as error:
        return BatchResult(row.custom_id, problem=str(error), model=reply.model, usage=reply.usage)
