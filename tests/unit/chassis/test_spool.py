"""The spool: durable, bounded, in order, and it loses nothing to a kill."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.errors import InvalidInputError, StorageFullError, UnavailableError
from shammah_chassis.examples import Envelope
from shammah_chassis.spool import Spool
from support.example_values import make_example

ROOM = 1 << 20


def envelope(name: str, *, size: int = 0) -> Envelope:
    return Envelope((make_example(f"question {name}", "answer " + "x" * size),))


class Receiver:
    """Takes what is published; from the `fails_at`-th on it is away."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.got: list[tuple[str, Envelope]] = []
        self.fails_at = fails_at

    async def __call__(self, source: str, sent: Envelope) -> None:
        if self.fails_at is not None and len(self.got) >= self.fails_at:
            raise UnavailableError("away")
        self.got.append((source, sent))


async def test_envelopes_are_sent_in_order_with_the_same_message_ids(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ROOM)
    sent = [envelope(str(index)) for index in range(12)]
    for index, item in enumerate(sent):
        await spool.append(f"source{index}", item)
    receiver = Receiver()
    assert await spool.drain(receiver) == 12
    assert [source for source, _ in receiver.got] == [f"source{index}" for index in range(12)]
    assert [item.message_id for _, item in receiver.got] == [item.message_id for item in sent]
    assert spool.pending() == 0
    assert await spool.drain(receiver) == 0


async def test_what_was_not_confirmed_stays_for_the_next_start(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ROOM)
    for index in range(4):
        await spool.append("teacher", envelope(str(index)))
    first = Receiver(fails_at=1)
    with pytest.raises(UnavailableError):
        await spool.drain(first)
    again = Spool(tmp_path / "spool", ROOM)
    assert again.pending() == 3
    await again.append("teacher", envelope("later"))
    second = Receiver()
    await again.drain(second)
    assert [item.examples[0].query_text for _, item in first.got + second.got] == [
        f"question {name}" for name in ("0", "1", "2", "3", "later")
    ]


async def test_a_spool_at_its_bound_refuses_by_name(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 10_000)
    await spool.append("teacher", envelope("a", size=3000))
    with pytest.raises(StorageFullError, match="10000 bytes"):
        await spool.append("teacher", envelope("b", size=8000))
    assert spool.pending() == 1
    await spool.drain(Receiver())
    await spool.append("teacher", envelope("c", size=3000))


async def test_a_full_disk_refuses_by_name_and_keeps_what_was_stored(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool", 1 << 30)
    stored = 0
    with pytest.raises(StorageFullError, match="no space"):
        for index in range(40):
            await spool.append("teacher", envelope(str(index), size=50_000))
            stored += 1
    assert stored > 2
    receiver = Receiver()
    assert await Spool(small_disk / "spool", 1 << 30).drain(receiver) == stored


@pytest.mark.parametrize("damage", ["torn", "changed", "header"])
async def test_a_damaged_record_is_set_aside_and_the_others_are_sent(tmp_path: Path, damage: str) -> None:
    spool = Spool(tmp_path / "spool", ROOM)
    for index in range(3):
        await spool.append("teacher", envelope(str(index)))
    last = max((tmp_path / "spool").glob("*.envelope"))
    data = last.read_bytes()
    last.write_bytes({"torn": data[:-5], "changed": data[:-5] + b"12345", "header": b"?" + data}[damage])
    spool = Spool(tmp_path / "spool", ROOM)
    receiver = Receiver()
    assert await spool.drain(receiver) == 2
    assert spool.state().set_aside == 1
    assert spool.pending() == 0
    assert (tmp_path / "spool/set_aside" / last.name).exists()


async def test_an_envelope_that_no_retry_mends_does_not_block_the_rest(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ROOM)
    for index in range(2):
        await spool.append("teacher", envelope(str(index)))
    got: list[str] = []

    async def publish(source: str, sent: Envelope) -> None:
        if sent.examples[0].query_text == "question 0":
            raise InvalidInputError("too large")
        got.append(sent.examples[0].query_text)

    assert await spool.drain(publish) == 1
    assert got == ["question 1"]
    assert spool.state().set_aside == 1


WRITER = """
import asyncio, sys
from pathlib import Path
from shammah_chassis.examples import Envelope
from shammah_chassis.spool import Spool
from support.example_values import make_example

async def main():
    spool = Spool(Path(sys.argv[1]), 1 << 30)
    for index in range(100000):
        await spool.append("teacher", Envelope((make_example(f"question {index}"),)))
        print(index, flush=True)

asyncio.run(main())
"""


async def test_a_kill_while_writing_loses_nothing_that_append_has_confirmed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(tmp_path / "spool"), stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    confirmed = -1
    while confirmed < 25:
        confirmed = int(await process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    rest = await process.stdout.read()
    await process.wait()
    confirmed = max([confirmed, *(int(line) for line in rest.split(b"\n")[:-1])])
    receiver = Receiver()
    sent = await Spool(tmp_path / "spool", 1 << 30).drain(receiver)
    assert sent >= confirmed + 1
    assert [item.examples[0].query_text for _, item in receiver.got] == [f"question {index}" for index in range(sent)]
    assert not list((tmp_path / "spool").glob(".aside-*"))


async def test_what_is_taken_out_is_gone_and_its_neighbours_are_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ROOM)
    secret, other = make_example("a secret of mine", request="01A"), make_example("another question", request="01B")
    await spool.append("teacher", Envelope((secret, other)))
    await spool.append("teacher", Envelope((make_example("a third", request="01A"),)))
    await spool.append("teacher", envelope("untouched"))
    assert await spool.take_out(lambda row: row.request == "01A") == 2
    assert not any(b"a secret of mine" in path.read_bytes() for path in (tmp_path / "spool").glob("*.envelope"))
    receiver = Receiver()
    assert await spool.drain(receiver) == 2
    assert {row.query_text for _, sent in receiver.got for row in sent.examples} == {
        "another question",
        "question untouched",
    }
    assert await spool.take_out(lambda row: True) == 0


class Held:
    """What a thread does to the folder, held from its beginning until its caller was cancelled."""

    def __init__(self, does: Callable[..., None]) -> None:
        self._does = does
        self._begun, self._gate = threading.Event(), threading.Event()

    def __call__(self, *given: Any) -> None:
        self._begun.set()
        self._gate.wait(10)
        self._does(*given)

    async def cancel(self, work: Coroutine[Any, Any, object]) -> None:
        """Run `work` and cancel it midway; returns when it has ended."""
        task = asyncio.create_task(work)
        assert await asyncio.to_thread(self._begun.wait, 10)
        task.cancel()
        # One turn of the loop: the cancellation arrives before the thread ends.
        await asyncio.sleep(0)
        self._gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_append_that_its_caller_gives_up_is_whole_and_the_next_ones_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", ROOM)
    held = Held(spool._write)
    monkeypatch.setattr(spool, "_write", held)
    await held.cancel(spool.append("teacher", envelope("first")))
    await spool.append("teacher", envelope("second"))
    receiver = Receiver()
    assert await spool.drain(receiver) == 2
    assert [sent.examples[0].query_text for _, sent in receiver.got] == ["question first", "question second"]


@pytest.mark.parametrize("how", ["drain", "take_out"])
async def test_a_removal_that_is_given_up_leaves_nothing_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    spool = Spool(tmp_path / "spool", ROOM)
    for index in range(3):
        await spool.append("teacher", envelope(str(index)))
    held = Held(spool._remove)
    monkeypatch.setattr(spool, "_remove", held)
    await held.cancel(
        spool.drain(Receiver()) if how == "drain" else spool.take_out(lambda row: row.query_text == "question 0")
    )
    assert spool.pending() == 2
    later = Receiver()
    assert await spool.drain(later) == 2
    assert [sent.examples[0].query_text for _, sent in later.got] == ["question 1", "question 2"]


async def test_a_record_that_somebody_removed_holds_nothing_up(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ROOM)
    for index in range(2):
        await spool.append("teacher", envelope(str(index)))
    min((tmp_path / "spool").glob("*.envelope")).unlink()
    assert await spool.drain(Receiver()) == 1
    assert spool.pending() == 0
