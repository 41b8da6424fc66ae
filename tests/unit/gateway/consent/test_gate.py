"""What is sent to a teacher passes the gate: masked and noted before, but for a user's own query."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.errors import StorageFullError
from shammah_chassis.examples import Message
from shammah_gateway.consent.audit import AuditLog
from shammah_gateway.consent.chain import read_tail
from shammah_gateway.consent.counts import TrafficCounts
from shammah_gateway.consent.gate import TeacherGate
from shammah_gateway.teachers.base import OfferedExample, Teacher, Wish
from support.gateway import PlainTeacher, make_ledger

MAIL = "jane@example.com"
QUERY = (Message("user", f"who is {MAIL}?"),)
MASKED = "who is <EMAIL_ADDRESS>?"


@dataclass
class OneMail:
    """Masks one address, so that these tests need no extra."""

    counts: Counter[str] = field(default_factory=Counter)

    def mask(self, text: str) -> tuple[str, Mapping[str, int]]:
        found = Counter({"EMAIL_ADDRESS": text.count(MAIL)}) if MAIL in text else Counter[str]()
        return text.replace(MAIL, "<EMAIL_ADDRESS>"), found


@dataclass
class Desk:
    """A teacher behind the gate."""

    folder: Path
    log: AuditLog
    counts: TrafficCounts
    port: PlainTeacher
    teacher: Teacher

    def rows(self) -> list[dict[str, Any]]:
        return read_tail(self.folder, 99)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    log, counts, port = AuditLog(tmp_path), TrafficCounts(), PlainTeacher()
    teacher = Teacher(port, make_ledger())
    teacher.gate = TeacherGate(log, counts, OneMail(), hosts=["api.example.com"])
    yield Desk(tmp_path, log, counts, port, teacher)
    await log.close()


async def test_a_users_own_query_is_sent_as_it_is_and_only_counted(desk: Desk) -> None:
    await desk.teacher.answer(QUERY, 10, purpose="answer", caller="bob")
    assert desk.port.asked[0][0] == QUERY and desk.rows() == []
    desk.counts.flush(desk.log)
    await desk.log.note("end", caller="", what={})
    size = len(QUERY[0].content)
    assert desk.rows()[0]["what"]["counts"] == {"sent api.example.com": {"count": 1, "bytes": size}}


@pytest.mark.parametrize("purpose", ["compare", "audit", "teach"])
async def test_what_tools_and_audits_send_is_masked_and_has_its_own_line(desk: Desk, purpose: Any) -> None:
    await desk.teacher.answer(QUERY, 10, purpose=purpose, caller="claude")
    assert [turn.content for turn in desk.port.asked[0][0]] == [MASKED]
    (row,) = desk.rows()
    assert (row["event"], row["caller"]) == ("teacher", "claude")
    assert row["what"] == {
        "purpose": purpose,
        "hosts": ["api.example.com"],
        "models": ["claude-sonnet-5-5"],
        "bytes": len(MASKED),
        "masked": {"EMAIL_ADDRESS": 1},
    }


async def test_nothing_is_sent_that_can_not_be_noted_but_a_users_query_goes_on(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("no folder")
    log, port = AuditLog(tmp_path / "log"), PlainTeacher()
    teacher = Teacher(port, make_ledger())
    teacher.gate = TeacherGate(log, TrafficCounts(), hosts=["api.example.com"])
    with pytest.raises(StorageFullError):
        await teacher.answer(QUERY, 10, purpose="compare", caller="claude")
    assert port.asked == [] and teacher.ledger.calls == 0
    assert (await teacher.answer(QUERY, 10, purpose="answer", caller="bob")).text == "Paris"
    await log.close()


async def test_a_wish_is_masked_in_focus_samples_and_what_is_there(desk: Desk) -> None:
    wish = Wish(
        category="mails",
        count=10,
        focus=f"as {MAIL}",
        samples=(OfferedExample(query=MAIL, response=f"it is {MAIL}"),),
        exclude=frozenset({MAIL}),
    )
    assert desk.teacher.gate is not None
    passed = await desk.teacher.gate.pass_wish(wish, caller="claude", models=())
    assert MAIL not in repr(passed) and passed.category == "mails" and passed.count == 10
    what = desk.rows()[0]["what"]
    assert (what["category"], what["count"], what["masked"]) == ("mails", 10, {"EMAIL_ADDRESS": 4})


async def test_texts_to_be_judged_are_masked(desk: Desk) -> None:
    assert desk.teacher.gate is not None
    passed = await desk.teacher.gate.pass_texts(MAIL, "b", MAIL, purpose="compare", caller="claude", models=())
    assert passed == ("<EMAIL_ADDRESS>", "b", "<EMAIL_ADDRESS>")


async def test_recorded_answers_are_asked_unmasked_as_nothing_leaves(tmp_path: Path) -> None:
    log, port = AuditLog(tmp_path), PlainTeacher()
    teacher = Teacher(port, make_ledger())
    teacher.gate = TeacherGate(log, TrafficCounts(), OneMail())
    await teacher.answer(QUERY, 10, purpose="compare", caller="claude")
    assert port.asked[0][0] == QUERY
    assert read_tail(tmp_path, 9)[0]["what"]["bytes"] == 0
    await log.close()
