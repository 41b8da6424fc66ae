from __future__ import annotations

import stat
from pathlib import Path

from shammah_gateway.money.usage import Usage
from shammah_gateway.teachers.base import Judgement
from shammah_gateway.teachers.verdicts import VerdictBook, digest_case

YES = Judgement(True, "the same", "m", Usage(output_tokens=5))


def test_a_verdict_is_found_again_after_a_restart_and_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "own" / "verdicts.jsonl"
    VerdictBook(path).keep("d1", YES)
    assert VerdictBook(path).find("d1") == Judgement(True, "the same", "m")
    assert VerdictBook(path).find("d2") is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_oldest_go_first_in_memory_and_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    book = VerdictBook(path, limit=3)
    for index in range(20):
        book.keep(f"d{index}", YES)
    assert len(book) == 3 and book.find("d16") is None and book.find("d17") == book.find("d19")
    assert len(path.read_text().splitlines()) <= 6
    assert [VerdictBook(path, limit=3).find(f"d{index}") is not None for index in (16, 17, 18, 19)] == [
        False,
        *[True] * 3,
    ]


def test_a_line_that_a_crash_cut_costs_that_verdict_only(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    VerdictBook(path).keep("d1", YES)
    path.write_text(path.read_text() + '{"digest": "d2", "agr')
    book = VerdictBook(path)
    assert book.find("d1") is not None and book.find("d2") is None
    book.keep("d3", YES)
    assert VerdictBook(path).find("d3") is not None


def test_a_disk_that_fails_does_not_cost_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    book = VerdictBook(tmp_path / "file" / "verdicts.jsonl")
    book.keep("d1", YES)
    assert book.find("d1") is not None


def test_every_part_of_the_case_and_the_teacher_count() -> None:
    case = ("q", "a", "b", "t")
    digests = {digest_case(*case), *(digest_case(*case[:n], "x", *case[n + 1 :]) for n in range(4))}
    assert len(digests) == 5
