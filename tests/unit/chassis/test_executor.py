import asyncio
import threading
from collections.abc import Iterator

import pytest
from shammah_chassis.errors import OverloadedError
from shammah_chassis.executor import BoundedExecutor
from shammah_chassis.logs import request_id
from support.services import until


@pytest.fixture
def executor() -> Iterator[BoundedExecutor]:
    made = BoundedExecutor(threads=1, queue_limit=2, name="test")
    yield made
    made.close()


async def test_work_runs_in_another_thread_with_its_arguments_and_the_request_id(executor: BoundedExecutor) -> None:
    request_id.set("r-1")
    result = await executor.run(lambda a, *, b: (a + b, request_id.get(), threading.get_ident()), 1, b=2)
    assert result[:2] == (3, "r-1")
    assert result[2] != threading.get_ident()


async def test_an_error_of_the_work_reaches_the_caller(executor: BoundedExecutor) -> None:
    with pytest.raises(ZeroDivisionError):
        await executor.run(lambda: 1 / 0)


async def test_a_full_queue_refuses_with_a_hint_and_takes_work_again_when_it_is_free(executor: BoundedExecutor) -> None:
    gate = threading.Event()
    jobs = [asyncio.create_task(executor.run(gate.wait)) for _ in range(3)]
    await until(lambda: executor.active == 1 and executor.queued == 2)
    with pytest.raises(OverloadedError) as caught:
        await executor.run(int)
    assert caught.value.retry_after_seconds is not None
    assert caught.value.retry_after_seconds > 0
    gate.set()
    assert await asyncio.gather(*jobs) == [True] * 3
    assert await executor.run(int) == 0


async def test_a_cancelled_caller_takes_its_waiting_job_out_of_the_queue(executor: BoundedExecutor) -> None:
    gate, ran = threading.Event(), []
    first = asyncio.create_task(executor.run(gate.wait))
    await until(lambda: executor.active == 1)
    second = asyncio.create_task(executor.run(ran.append, 1))
    await until(lambda: executor.queued == 1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert executor.queued == 0
    gate.set()
    await first
    assert ran == []


async def test_a_cancelled_caller_is_kept_until_its_running_job_ends(executor: BoundedExecutor) -> None:
    gate, started = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        gate.wait()

    job = asyncio.create_task(executor.run(work))
    await until(started.is_set)
    for _ in range(2):
        job.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not job.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await job
    await until(lambda: executor.active == 0)
