from __future__ import annotations

import os
from pathlib import Path

import pytest
from shammah_chassis.errors import ArtifactError, ConflictError, NotFoundError, StorageFullError
from shammah_gateway.teach.journal import FILE_NAME, create_journal, find_session, open_journal, read_journal


def test_lines_are_read_back_in_order_with_their_numbers(tmp_path: Path) -> None:
    journal = create_journal(tmp_path)
    journal.append("session", {"goal": "1"})
    journal.append("intent", {"step": 1, "text": "Grüße\n\u2028 end"})
    journal.close()
    again = open_journal(tmp_path / journal.session)
    assert [(entry["n"], entry["kind"]) for entry in again.entries] == [(1, "session"), (2, "intent")]
    assert again.of("intent")[0]["text"] == "Grüße\n\u2028 end"
    again.close()


@pytest.mark.parametrize("torn", [b"{", b'{"n": 2, "at": 1, "kind": "int', b'{"n": 2, "kind": "x"}'])
def test_a_torn_last_line_is_cut_off_and_written_over(tmp_path: Path, torn: bytes) -> None:
    journal = create_journal(tmp_path)
    journal.append("session", {})
    journal.close()
    with (journal.folder / FILE_NAME).open("ab") as file:
        file.write(torn)
    assert len(read_journal(journal.folder)) == 1
    again = open_journal(journal.folder)
    again.append("intent", {})
    again.close()
    assert [entry["kind"] for entry in read_journal(journal.folder)] == ["session", "intent"]


@pytest.mark.parametrize("line", [b"no json\n", b'{"n": 7, "kind": "x"}\n', b"[]\n", b'{"n": 1}\n'])
def test_a_damaged_line_that_is_not_the_last_is_refused(tmp_path: Path, line: bytes) -> None:
    journal = create_journal(tmp_path)
    journal.close()
    (journal.folder / FILE_NAME).write_bytes(line)
    with pytest.raises(ArtifactError, match="line 1"):
        open_journal(journal.folder)
    # The lock was given back: the second refusal is the same one.
    with pytest.raises(ArtifactError):
        open_journal(journal.folder)


def test_one_process_has_a_session_at_a_time(tmp_path: Path) -> None:
    journal = create_journal(tmp_path)
    with pytest.raises(ConflictError, match=journal.session):
        open_journal(journal.folder)
    journal.close()
    open_journal(journal.folder).close()


def test_a_full_disk_is_named_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = create_journal(tmp_path)
    journal.append("session", {})
    size = (journal.folder / FILE_NAME).stat().st_size
    write = os.write

    def full(file: int, data: bytes) -> int:
        write(file, data[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageFullError):
        journal.append("intent", {})
    monkeypatch.undo()
    assert (journal.folder / FILE_NAME).stat().st_size == size
    assert len(journal.entries) == 1
    journal.append("intent", {})
    journal.close()
    assert [entry["n"] for entry in read_journal(journal.folder)] == [1, 2]


def test_the_last_session_is_found_by_that_word_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="last"):
        find_session(tmp_path, "last")
    first = create_journal(tmp_path)
    second = create_journal(tmp_path)
    assert find_session(tmp_path, "last") == max(first.folder, second.folder)
    assert find_session(tmp_path, first.session) == first.folder
    with pytest.raises(NotFoundError, match="no session 'x'"):
        find_session(tmp_path, "x")
    first.close()
    second.close()


def test_the_journal_is_for_its_owner_only(tmp_path: Path) -> None:
    journal = create_journal(tmp_path)
    assert (journal.folder / FILE_NAME).stat().st_mode & 0o077 == 0
    journal.close()
