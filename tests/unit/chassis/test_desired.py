import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.desired import recall_wanted, watch_wanted
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.errors import UnavailableError
from shammah_chassis.executor import BoundedExecutor
from shammah_chassis.held import HeldVersions, Loader
from shammah_chassis.releases import Wanted
from shammah_chassis.ulid import new_ulid
from support.services import until


@dataclass
class Entry:
    value: str


class Keys:
    """A bus whose key takes the values that a test puts, and fails where it says so."""

    def __init__(self) -> None:
        self.values: asyncio.Queue[str | None] = asyncio.Queue()

    async def kv_watch(self, key: str, /) -> AsyncIterator[Any]:
        assert key == "wanted"
        while (value := await self.values.get()) is not None:
            yield Entry(value)
        raise UnavailableError("the bus is away")


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[HeldVersions[int]]:
    executor = BoundedExecutor(threads=1, queue_limit=9, name="loader")
    store = DirectoryStore(tmp_path / "store")
    loader: Loader[int] = Loader(load=lambda *_: 1, close=lambda _: None)
    made = HeldVersions("router", store=store, loader=loader, cache_dir=tmp_path, executor=executor)
    yield made
    await made.close()
    executor.close()


def names(held: HeldVersions[int]) -> list[str]:
    return [state.release for state in held.snapshot()]


async def test_each_wish_is_followed_and_remembered_through_failures(
    held: HeldVersions[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shammah_chassis.desired._PAUSE_SECONDS", 0.01)
    first, second = new_ulid(), new_ulid()
    keys, path = Keys(), tmp_path / "deep" / "wanted.json"
    task = watch_wanted(keys, held, remember=path)
    keys.values.put_nowait(Wanted((first,)).to_json())
    await until(lambda: names(held) == [first])
    keys.values.put_nowait("no wish")
    keys.values.put_nowait(None)
    keys.values.put_nowait(Wanted((second,)).to_json())
    await until(lambda: names(held) == [second])
    assert recall_wanted(path) == Wanted((second,))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_the_watch_ends_with_the_pod_even_when_a_cancellation_is_swallowed(
    held: HeldVersions[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shammah_chassis.desired._PAUSE_SECONDS", 0.01)
    keys = Keys()
    task = watch_wanted(keys, held)
    held.end_watches()
    keys.values.put_nowait(None)
    async with asyncio.timeout(5):
        await task
    assert task.done() and not task.cancelled()


def test_a_memory_that_is_missing_or_broken_is_no_wish(tmp_path: Path) -> None:
    assert recall_wanted(tmp_path / "none.json") is None
    (tmp_path / "broken.json").write_text("{")
    assert recall_wanted(tmp_path / "broken.json") is None
