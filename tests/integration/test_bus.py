"""The event bus against a real nats-server, and what it does when that server dies or is full."""

from __future__ import annotations

import asyncio

import pytest
from shammah_chassis.bus import Bus, KvEntry
from shammah_chassis.errors import (
    ConflictError,
    InvalidInputError,
    StorageFullError,
    UnauthenticatedError,
    UnavailableError,
)
from shammah_chassis.examples import Envelope
from shammah_chassis.nats_server import NatsServer
from support.example_values import make_example
from support.nats import RestartableNats


def envelope(name: str, *, size: int = 0) -> Envelope:
    return Envelope((make_example(f"question {name}", f"answer {name} " + "x" * size),))


async def read_all(bus: Bus) -> list[str]:
    return [Envelope.decode(message.data).examples[0].query_text async for message in bus.read_log(1)]


async def test_an_envelope_comes_back_from_the_log_as_it_was(bus: Bus) -> None:
    sent = envelope("a")
    published = await bus.publish_envelope("teacher", sent)
    (message,) = [message async for message in bus.read_log(1)]
    assert (published.sequence, published.duplicate) == (1, False)
    assert message.sequence == 1
    assert Envelope.decode(message.data) == sent


async def test_the_same_envelope_twice_is_one_message(bus: Bus) -> None:
    first = await bus.publish_envelope("teacher", envelope("a"))
    again = await bus.publish_envelope("teacher", envelope("a"))
    assert again.duplicate
    assert again.sequence == first.sequence
    assert await bus.last_sequence() == 1


async def test_reading_the_log_starts_where_it_is_told_and_ends_at_the_newest(bus: Bus) -> None:
    for index in range(5):
        await bus.publish_envelope(f"source{index}", envelope(str(index)))
    found = [message.sequence async for message in bus.read_log(3)]
    assert found == [3, 4, 5]
    assert [message.sequence async for message in bus.read_log(6)] == []


async def test_a_source_that_is_no_word_is_refused(bus: Bus) -> None:
    with pytest.raises(InvalidInputError, match=r"a\.b"):
        await bus.publish_envelope("a.b", envelope("a"))


async def test_a_full_log_refuses_by_name_and_keeps_what_it_has(bus: Bus) -> None:
    await bus.ensure(max_bytes=60_000)
    stored = 0
    with pytest.raises(StorageFullError, match="maximum bytes"):
        for index in range(20):
            await bus.publish_envelope("teacher", envelope(str(index), size=8_000))
            stored += 1
    assert stored >= 2
    assert len(await read_all(bus)) == stored
    # A larger bound, and it goes on.
    await bus.ensure(max_bytes=1_000_000)
    await bus.publish_envelope("teacher", envelope("after", size=8_000))
    assert (await bus.log_state()).messages == stored + 1


async def test_ensure_without_a_bound_leaves_the_bound(bus: Bus) -> None:
    await bus.ensure(max_bytes=70_000)
    await bus.ensure()
    assert (await bus.log_state()).max_bytes == 70_000


async def test_a_dead_letter_keeps_its_bytes_and_its_reason(bus: Bus) -> None:
    await bus.dead_letter(b"broken", "not\nJSON", 12)
    message = await bus.jetstream.get_last_msg("DEAD", "dead.examples")
    assert message.data == b"broken"
    assert message.headers["Shammah-Reason"] == "not JSON"
    assert message.headers["Shammah-Sequence"] == "12"


async def test_a_key_is_created_once_and_updated_by_revision_only(bus: Bus) -> None:
    assert await bus.kv_get("champion") is None
    first = await bus.kv_create("champion", "a")
    with pytest.raises(ConflictError):
        await bus.kv_create("champion", "b")
    second = await bus.kv_update("champion", "c", first)
    with pytest.raises(ConflictError):
        await bus.kv_update("champion", "d", first)
    assert await bus.kv_get("champion") == KvEntry("c", second)
    assert second > first


async def test_concurrent_updates_by_compare_and_set_lose_nothing(bus: Bus) -> None:
    await bus.kv_create("wanted", "0")

    async def add_ten() -> None:
        for _ in range(10):
            while True:
                entry = await bus.kv_get("wanted")
                assert entry is not None
                try:
                    await bus.kv_update("wanted", str(int(entry.value) + 1), entry.revision)
                    break
                except ConflictError:
                    continue

    await asyncio.gather(*(add_ten() for _ in range(4)))
    entry = await bus.kv_get("wanted")
    assert entry is not None
    assert entry.value == "40"


async def test_a_watch_gives_the_value_now_and_each_change(bus: Bus) -> None:
    revision = await bus.kv_create("wanted", "a")
    watch = bus.kv_watch("wanted")
    assert (await asyncio.wait_for(anext(watch), 10)).value == "a"
    await bus.kv_update("wanted", "b", revision)
    assert (await asyncio.wait_for(anext(watch), 10)).value == "b"
    await watch.aclose()


async def test_a_watch_of_a_key_without_value_waits_for_the_first(bus: Bus) -> None:
    watch = bus.kv_watch("champion")
    first = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    await bus.kv_create("champion", "new")
    assert (await asyncio.wait_for(first, 10)).value == "new"
    await watch.aclose()


async def test_a_watch_lives_through_a_kill_of_the_server(own_nats: RestartableNats) -> None:
    bus = await Bus.connect(own_nats.url)
    await bus.ensure()
    revision = await bus.kv_create("wanted", "before")
    watch = bus.kv_watch("wanted")
    assert (await asyncio.wait_for(anext(watch), 10)).value == "before"
    after = asyncio.ensure_future(anext(watch))
    own_nats.kill()
    own_nats.start()
    await bus.kv_update("wanted", "after", revision)
    assert (await asyncio.wait_for(after, 20)).value == "after"
    await watch.aclose()
    await bus.close()


async def test_kills_in_the_middle_of_publishing_lose_and_double_nothing(own_nats: RestartableNats) -> None:
    bus = await Bus.connect(own_nats.url)
    await bus.ensure()
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async def publish_many(publisher: int) -> None:
        index = 0
        while not stop.is_set():
            sent = envelope(f"{publisher}-{index}")
            while True:
                try:
                    await bus.publish_envelope("teacher", sent)
                    break
                except UnavailableError:
                    continue
            acknowledged.append(sent.examples[0].query_text)
            index += 1

    publishers = [asyncio.create_task(publish_many(number)) for number in range(8)]
    for _ in range(3):
        goal = len(acknowledged) + 60
        async with asyncio.timeout(60):
            while len(acknowledged) < goal:
                await asyncio.sleep(0.01)
        own_nats.kill()
        own_nats.start()
    stop.set()
    await asyncio.gather(*publishers)
    found = await read_all(bus)
    assert len(found) == len(set(found)), "doubled"
    assert set(acknowledged) <= set(found), "lost"
    await bus.close()


async def test_a_compare_and_set_whose_answer_is_lost_does_not_lose_against_itself(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = await bus.kv_create("champion", "a")
    send = bus.jetstream.publish
    attempts = 0

    async def lose_the_first_answer(*args: object, **kwargs: object) -> object:
        nonlocal attempts
        attempts += 1
        answer = await send(*args, **kwargs)
        if attempts == 1:
            raise TimeoutError
        return answer

    monkeypatch.setattr(bus.jetstream, "publish", lose_the_first_answer)
    updated = await bus.kv_update("champion", "b", revision)
    assert attempts == 2
    assert await bus.kv_get("champion") == KvEntry("b", updated)


async def test_without_a_server_publishing_says_unavailable(own_nats: RestartableNats) -> None:
    bus = await Bus.connect(own_nats.url)
    await bus.ensure()
    own_nats.kill()
    with pytest.raises(UnavailableError, match=r"examples\.new\.teacher"):
        await bus.publish_envelope("teacher", envelope("a"))
    own_nats.start()
    assert not (await bus.publish_envelope("teacher", envelope("a"))).duplicate
    await bus.close()


async def test_a_wrong_token_is_refused_by_name(tmp_path) -> None:
    server = NatsServer.start(tmp_path / "guarded", token="right-token")
    try:
        with pytest.raises(UnauthenticatedError) as caught:
            await Bus.connect(f"nats://127.0.0.1:{server.port}", token="wrong")
        assert "wrong" not in str(caught.value)
        bus = await Bus.connect(server.url)
        await bus.ensure()
        await bus.close()
        assert (server.folder / "nats.conf").stat().st_mode & 0o077 == 0
    finally:
        server.stop()


async def test_nobody_there_is_unavailable_within_the_timeout() -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        await Bus.connect("nats://127.0.0.1:1", timeout=0.5)


async def test_a_log_that_nobody_made_is_unavailable_by_name(own_nats: RestartableNats) -> None:
    bus = await Bus.connect(own_nats.url)
    with pytest.raises(UnavailableError, match="not made yet"):
        await bus.last_sequence()
    await bus.close()
    watch = bus.kv_watch("wanted")
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(anext(watch), 20)
