"""The audit log on a real disk: order, chain, kills, rotation, no room."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.errors import InvalidInputError, StorageFullError
from shammah_gateway.consent.audit import MAX_WAITING, AuditLog
from shammah_gateway.consent.chain import GENESIS, Head, list_files, read_tail, verify
from support.services import until
from support.small_disk import small_disk

__all__ = ["small_disk"]


def rows(folder: Path) -> list[dict[str, Any]]:
    return read_tail(folder, 100_000)


def corrupt(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


async def write(folder: Path, count: int, **options: Any) -> AuditLog:
    log = AuditLog(folder, **options)
    for number in range(count):
        await log.note("tool", caller="bob", what={"n": number})
    await log.close()
    return log


async def test_a_note_is_on_the_disk_when_it_returns_private_numbered_and_chained(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    await log.note("tool", caller="bob", what={"name": "train"})
    (row,) = rows(tmp_path)
    assert (row["seq"], row["event"], row["caller"], row["what"]) == (1, "tool", "bob", {"name": "train"})
    assert row["prev"] == GENESIS
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600
    await log.note("tool", caller="bob", what={})
    assert rows(tmp_path)[1]["seq"] == 2
    await log.close()
    found = verify(tmp_path)
    assert found.problem == "" and found.lines == 2 and found.head == log.head


async def test_jotted_lines_keep_their_order_and_are_written_at_the_close(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    for number in range(3000):
        log.jot("tool_done", caller="bob", what={"n": number})
    await log.note("tool", caller="bob", what={"n": 3000})
    log.jot("stop", caller="", what={"n": 3001})
    await log.close()
    assert [row["what"]["n"] for row in rows(tmp_path)] == list(range(3002))
    assert verify(tmp_path).problem == ""


async def test_the_chain_goes_on_after_a_restart_and_over_full_files(tmp_path: Path) -> None:
    await write(tmp_path, 40, max_bytes=4096)
    await write(tmp_path, 40, max_bytes=4096)
    files = list_files(tmp_path)
    assert len(files) > 2 and all(path.stat().st_size <= 4096 for path in files)
    assert [row["seq"] for row in rows(tmp_path)] == list(range(1, 81))
    assert verify(tmp_path).lines == 80 and verify(tmp_path).problem == ""


async def test_a_restart_right_after_a_file_was_set_aside_goes_on_with_its_chain(tmp_path: Path) -> None:
    await write(tmp_path, 3)
    (tmp_path / "audit.jsonl").rename(tmp_path / "audit-000000000001.jsonl")
    await write(tmp_path, 1)
    assert [row["seq"] for row in rows(tmp_path)] == [1, 2, 3, 4] and verify(tmp_path).problem == ""


@pytest.mark.parametrize("torn", [b'{"seq":4,"at":1', b"\xff\xfe"])
async def test_a_line_that_a_kill_tore_is_cut_and_told_of(tmp_path: Path, torn: bytes) -> None:
    await write(tmp_path, 3)
    with (tmp_path / "audit.jsonl").open("ab") as target:
        target.write(torn)
    assert verify(tmp_path).problem
    await write(tmp_path, 1)
    assert [row["event"] for row in rows(tmp_path)] == ["tool", "tool", "tool", "torn_line", "tool"]
    assert rows(tmp_path)[3]["what"]["bytes"] == len(torn)
    assert verify(tmp_path).problem == ""


async def test_a_log_whose_end_is_damaged_is_not_written_on(tmp_path: Path) -> None:
    await write(tmp_path, 2)
    with (tmp_path / "audit.jsonl").open("ab") as target:
        target.write(b"nonsense\n")
    log = AuditLog(tmp_path)
    with pytest.raises(InvalidInputError, match="damaged at its end"):
        await log.open()
    await log.close()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"n":1', b'"n":7', "line 2 was changed"),
        (b'"seq":2', b'"seq":9', "after line 1 comes line 9"),
        (b'"caller":"bob","what":{"n":0}', b'"caller":"eve","what":{"n":0}', "line 1 was changed"),
    ],
)
async def test_a_changed_line_breaks_the_chain(tmp_path: Path, old: bytes, new: bytes, words: str) -> None:
    await write(tmp_path, 4)
    corrupt(tmp_path / "audit.jsonl", old, new)
    assert words in verify(tmp_path).problem


async def test_lines_that_were_taken_out_swapped_or_added_break_the_chain(tmp_path: Path) -> None:
    await write(tmp_path, 4)
    path = tmp_path / "audit.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for changed in ([*lines[:1], *lines[2:]], [lines[1], lines[0], *lines[2:]], [*lines[:2], lines[1], *lines[2:]]):
        path.write_bytes(b"".join(changed))
        assert verify(tmp_path).problem
    path.write_bytes(b"".join(lines))
    assert verify(tmp_path).problem == ""


async def test_a_head_that_was_kept_shows_that_the_end_was_cut_or_written_anew(tmp_path: Path) -> None:
    head = (await write(tmp_path, 4)).head
    path = tmp_path / "audit.jsonl"
    assert verify(tmp_path, expected=head).problem == ""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    assert verify(tmp_path).problem == ""
    assert "line 4 with the hash that was kept is not in the log" in verify(tmp_path, expected=head).problem


async def test_old_files_may_be_taken_away_and_the_check_says_where_the_chain_begins(tmp_path: Path) -> None:
    await write(tmp_path, 60, max_bytes=4096)
    list_files(tmp_path)[0].unlink()
    found = verify(tmp_path)
    assert found.problem == "" and found.first > 1 and found.head.number == 60


async def test_without_room_a_note_is_refused_jots_wait_and_all_is_well_with_room_again(small_disk: Path) -> None:
    log = AuditLog(small_disk / "log")
    await log.note("tool", caller="bob", what={"n": 0})
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as target, pytest.raises(OSError, match="No space"):
        while True:
            target.write(b"x" * 4096)
    with pytest.raises(StorageFullError, match="refused, as it can't be noted"):
        await log.note("tool", caller="bob", what={"text": "y" * 5000})
    assert "queries go on" in log.warning
    with pytest.raises(StorageFullError):
        log.check()
    log.jot("tool_done", caller="bob", what={"text": "z" * 5000})
    with pytest.raises(StorageFullError):
        await log.note("tool", caller="bob", what={})
    filler.unlink()
    await log.note("tool", caller="bob", what={"n": 1})
    assert log.warning == ""
    log.check()
    await log.close()
    assert [row["event"] for row in rows(small_disk / "log")] == ["tool", "not_writable", "tool_done", "tool"]
    assert verify(small_disk / "log").problem == ""


async def test_that_it_can_be_written_again_is_found_without_another_line(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.write_text("a file where the folder should be")
    log = AuditLog(folder)
    with pytest.raises(StorageFullError):
        await log.note("tool", caller="bob", what={})
    folder.unlink()
    await until(lambda: not log.warning)
    # A call that changes nothing looks at this alone: it would be refused for ever.
    log.check()
    await log.close()
    assert [row["event"] for row in rows(folder)] == ["not_writable"]


async def test_half_a_line_that_could_not_be_cut_off_is_cut_off_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(tmp_path)
    await log.note("tool", caller="bob", what={"n": 0})

    def tear(handle: int, data: memoryview) -> int:
        whole(handle, bytes(data[:5]))
        raise OSError(errno.EIO, "broken")

    def refuse(handle: int, size: int) -> None:
        raise OSError(errno.EIO, "broken")

    whole = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", tear)
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(StorageFullError):
            await log.note("tool", caller="bob", what={"n": 1})
    await log.note("tool", caller="bob", what={"n": 2})
    await log.close()
    assert [row["event"] for row in rows(tmp_path)] == ["tool", "torn_line", "not_writable", "tool"]
    assert verify(tmp_path).problem == ""


async def test_jots_that_find_no_room_for_long_are_counted_and_the_log_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.write_text("a file where the folder should be")
    log = AuditLog(folder)
    for number in range(MAX_WAITING + 50):
        log.jot("tool_done", caller="bob", what={"n": number})
    await until(lambda: bool(log.warning))
    for number in range(50):
        log.jot("tool_done", caller="bob", what={"n": number})
    folder.unlink()
    await log.note("tool", caller="bob", what={})
    await log.close()
    found = rows(folder)
    lost = next(row for row in found if row["event"] == "lines_lost")
    assert lost["what"]["lines"] + sum(row["event"] == "tool_done" for row in found) == MAX_WAITING + 100
    assert verify(folder).problem == ""


async def test_a_note_that_is_given_up_is_written_all_the_same(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    task = asyncio.create_task(log.note("tool", caller="bob", what={}))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await log.note("tool", caller="bob", what={})
    await log.close()
    assert len(rows(tmp_path)) == 2


async def test_text_of_any_kind_stays_on_its_line(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    await log.note("tool", caller="b\nob", what={"text": 'a\r\nb"\u2028\ud800', "seq": 99, "prev": "x"})
    await log.close()
    (line,) = (tmp_path / "audit.jsonl").read_bytes().splitlines()
    assert json.loads(line)["seq"] == 1
    assert verify(tmp_path).problem == "" and verify(tmp_path, expected=Head(1, "0" * 64)).problem
