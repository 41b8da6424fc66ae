"""Nobody else reads a data folder or a log: they hold conversations."""

from __future__ import annotations

from pathlib import Path

from shammah_chassis.private import make_private, open_private_log
from shammah_chassis.token_book import TokenBook, write_private


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_data_folder_is_for_its_owner_alone_whether_it_was_there_or_not(tmp_path: Path) -> None:
    fresh, old = tmp_path / "a" / "data", tmp_path / "old"
    old.mkdir(mode=0o755)
    old.chmod(0o755)
    for folder in (fresh, old, old):
        make_private(folder)
        assert mode_of(folder) == 0o700


def test_a_folder_that_is_everybodys_stays_so(tmp_path: Path) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    make_private(shared)
    assert mode_of(shared) == 0o1777


def test_a_folder_that_a_token_makes_is_for_its_owner_alone(tmp_path: Path) -> None:
    TokenBook(tmp_path / "a" / "tokens.json").grant("claude", ["train"])
    write_private(tmp_path / "b" / "owner.token", "secret\n")
    assert mode_of(tmp_path / "a") == 0o700
    assert mode_of(tmp_path / "b") == 0o700


def test_a_log_is_for_its_owner_alone_and_is_written_at_its_end(tmp_path: Path) -> None:
    log = tmp_path / "run" / "part.log"
    log.parent.mkdir()
    log.write_text("before\n", "utf-8")
    log.chmod(0o644)
    with open_private_log(log) as first:
        first.write(b"then\n")
    assert log.read_text("utf-8") == "before\nthen\n"
    assert mode_of(log) == 0o600
    with open_private_log(log, anew=True) as again:
        again.write(b"anew\n")
    assert log.read_text("utf-8") == "anew\n"
    with open_private_log(tmp_path / "new" / "part.log"):
        assert mode_of(tmp_path / "new" / "part.log") == 0o600
