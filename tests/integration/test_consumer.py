"""The trainer's consumer: one acknowledgement for many, and what was not acknowledged comes again."""

from __future__ import annotations

import asyncio

import pytest
from shammah_chassis.bus import Bus
from shammah_chassis.consumer import ExampleConsumer
from shammah_chassis.errors import UnavailableError
from shammah_chassis.examples import Envelope
from support.example_values import make_example
from support.nats import RestartableNats


async def publish(bus: Bus, count: int) -> None:
    for index in range(count):
        await bus.publish_envelope("teacher", Envelope((make_example(f"question {index}"),)))


async def fetch_all(consumer: ExampleConsumer, count: int) -> list[int]:
    """Fetch until `count` different messages came."""
    found: set[int] = set()
    async with asyncio.timeout(30):
        while len(found) < count:
            found |= {message.sequence for message in await consumer.fetch(count, 1.0)}
    return sorted(found)


async def pending(bus: Bus) -> int:
    info = await bus.jetstream.consumer_info("EXAMPLES", "trainer")
    return int(info.num_ack_pending)


async def test_messages_come_in_the_order_of_the_log(bus: Bus) -> None:
    await publish(bus, 5)
    consumer = ExampleConsumer(bus)
    messages = await consumer.fetch(10, 2.0)
    assert [message.sequence for message in messages] == [1, 2, 3, 4, 5]
    assert Envelope.decode(messages[0].data).examples[0].query_text == "question 0"


async def test_nothing_new_is_an_empty_list(bus: Bus) -> None:
    assert await ExampleConsumer(bus).fetch(10, 0.2) == []


async def test_one_acknowledgement_covers_all_before_it(bus: Bus) -> None:
    await publish(bus, 6)
    consumer = ExampleConsumer(bus)
    assert await fetch_all(consumer, 6) == [1, 2, 3, 4, 5, 6]
    await consumer.ack_through(4)
    assert await pending(bus) == 2
    await consumer.ack_through(6)
    assert await pending(bus) == 0


async def test_what_was_not_acknowledged_comes_again_to_a_new_reader(bus: Bus) -> None:
    await publish(bus, 4)
    first = ExampleConsumer(bus, ack_wait_seconds=0.5)
    assert await fetch_all(first, 4) == [1, 2, 3, 4]
    await first.ack_through(2)
    second = ExampleConsumer(bus, ack_wait_seconds=0.5)
    assert await fetch_all(second, 2) == [3, 4]
    # An acknowledgement of messages that came again counts too.
    await second.ack_through(4)
    assert await pending(bus) == 0


async def test_work_in_progress_is_not_delivered_again(bus: Bus) -> None:
    await publish(bus, 2)
    consumer = ExampleConsumer(bus, ack_wait_seconds=1.0)
    assert await fetch_all(consumer, 2) == [1, 2]
    other = ExampleConsumer(bus, ack_wait_seconds=1.0)
    for _ in range(6):
        await consumer.in_progress()
        assert await other.fetch(2, 0.3) == []
    assert await fetch_all(other, 2) == [1, 2]


async def test_after_a_kill_of_the_server_the_rest_comes_and_nothing_is_missed(own_nats: RestartableNats) -> None:
    bus = await Bus.connect(own_nats.url)
    await bus.ensure()
    await publish(bus, 4)
    consumer = ExampleConsumer(bus, ack_wait_seconds=0.5)
    assert await fetch_all(consumer, 4) == [1, 2, 3, 4]
    await consumer.ack_through(2)
    own_nats.kill()
    own_nats.start()
    await bus.publish_envelope("teacher", Envelope((make_example("later"),)))
    seen: set[int] = set()
    async with asyncio.timeout(30):
        while not {3, 4, 5} <= seen:
            try:
                seen |= {message.sequence for message in await consumer.fetch(10, 0.5)}
            except UnavailableError:
                continue
    await consumer.ack_through(5)
    assert await pending(bus) == 0
    await bus.close()


async def test_without_a_server_fetching_says_unavailable(own_nats: RestartableNats) -> None:
    bus = await Bus.connect(own_nats.url)
    await bus.ensure()
    consumer = ExampleConsumer(bus)
    await consumer.fetch(1, 0.1)
    own_nats.kill()
    with pytest.raises(UnavailableError):
        await consumer.fetch(2, 0.5)
    await bus.close()
