from __future__ import annotations

import pytest
from shammah_chassis.errors import BudgetError, InvalidInputError, NotFoundError, ShammahError, StorageFullError
from shammah_gateway import feedback
from shammah_gateway.feedback import FeedbackDesk
from shammah_gateway.values import Answer, Versions
from support.gateway import Sink, ask


def make_answer(query_id: str = "Q1", *, route: str = "local", text: str = "Lyon") -> Answer:
    return Answer(
        query_id=query_id,
        text=text,
        route=route,  # type: ignore[arg-type]
        reason="quality",
        category="capitals",
        confidence=0.9,
        versions=Versions("R1"),
        latency_seconds=0.1,
        teacher_model="" if route == "local" else "plain-1",
    )


def make_desk(*, daily_weight: float = 200.0, route: str = "local") -> tuple[FeedbackDesk, Sink, list[float]]:
    sink, now = Sink(), [1_000_000.0]
    desk = FeedbackDesk(sink, daily_weight=daily_weight, now=lambda: now[0])
    desk.remember(ask(), make_answer(route=route))
    return desk, sink, now


async def test_a_correction_is_an_example_of_weight_ten() -> None:
    desk, sink, _ = make_desk()
    done = await desk.rate("owner", "Q1", -1, "Paris")
    assert (done.effect, done.weight) == ("example", 10.0)
    (example,) = sink.examples
    assert (example.response, example.student_attempt, example.weight) == ("Paris", "Lyon", 10.0)
    assert (example.provenance.origin, example.grader, example.rating, example.user) == (
        "user_correction",
        "exact",
        0,
        "owner",
    )


async def test_a_bad_rating_alone_goes_to_the_judge_only() -> None:
    desk, sink, _ = make_desk()
    done = await desk.rate("owner", "Q1", -1, "")
    assert (done.effect, done.weight) == ("judge_only", 3.0)
    (example,) = sink.examples
    assert (example.response, example.student_attempt, example.rating) == ("", "Lyon", -1)


async def test_a_good_rating_has_weight_one_and_the_students_own_text_is_for_the_judge() -> None:
    desk, sink, _ = make_desk()
    done = await desk.rate("owner", "Q1", 1, "")
    assert (done.effect, done.weight) == ("judge_only", 1.0)
    assert (sink.examples[0].rating, sink.examples[0].student_attempt) == (1, "Lyon")


async def test_a_good_rating_of_the_teachers_answer_is_an_example() -> None:
    desk, sink, _ = make_desk(route="teacher")
    assert (await desk.rate("owner", "Q1", 1, "")).effect == "example"
    assert sink.examples[0].student_attempt == ""


async def test_the_same_rating_again_does_nothing() -> None:
    desk, sink, _ = make_desk()
    await desk.rate("owner", "Q1", -1, "Paris")
    done = await desk.rate("owner", "Q1", -1, "Paris")
    assert (done.effect, done.weight, len(sink.examples)) == ("duplicate", 0.0, 1)


async def test_a_users_weight_is_capped_per_day() -> None:
    desk, sink, now = make_desk(daily_weight=12.0)
    assert (await desk.rate("owner", "Q1", -1, "Paris")).weight == 10.0
    assert (await desk.rate("owner", "Q1", -1, "paris")).weight == 2.0
    with pytest.raises(BudgetError):
        await desk.rate("owner", "Q1", -1, "PARIS")
    now[0] += 86_400
    assert (await desk.rate("owner", "Q1", -1, "PARIS")).weight == 10.0
    assert len(sink.examples) == 3


async def test_a_rating_that_could_not_be_kept_can_be_given_again() -> None:
    desk, sink, _ = make_desk(daily_weight=10.0)
    sink.error = StorageFullError("full")
    with pytest.raises(StorageFullError):
        await desk.rate("owner", "Q1", -1, "Paris")
    sink.error = None
    assert (await desk.rate("owner", "Q1", -1, "Paris")).weight == 10.0


@pytest.mark.parametrize(
    ("user", "query_id", "rating", "correction", "kind"),
    [
        ("owner", "Q2", 1, "", NotFoundError),
        ("somebody", "Q1", 1, "", NotFoundError),
        ("owner", "Q1", 0, "", InvalidInputError),
        ("owner", "Q1", 1, "Paris", InvalidInputError),
        ("owner", "Q1", -1, "  ", InvalidInputError),
        ("owner", "Q1", -1, "x" * 100_001, InvalidInputError),
    ],
)
async def test_bad_feedback_is_refused(
    user: str, query_id: str, rating: int, correction: str, kind: type[ShammahError]
) -> None:
    desk, sink, _ = make_desk()
    with pytest.raises(kind):
        await desk.rate(user, query_id, rating, correction)
    assert sink.examples == []


async def test_the_oldest_answer_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "REMEMBERED", 2)
    desk, _, _ = make_desk()
    desk.remember(ask(), make_answer("Q2"))
    desk.remember(ask(), make_answer("Q3"))
    with pytest.raises(NotFoundError):
        await desk.rate("owner", "Q1", 1, "")
    assert (await desk.rate("owner", "Q3", 1, "")).weight == 1.0


async def test_long_answers_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "REMEMBERED_CHARS", 2_500)
    desk, _, _ = make_desk()
    for number in (2, 3, 3, 4):
        desk.remember(ask(), make_answer(f"Q{number}", text="a" * 1_000))
    for gone in ("Q1", "Q2"):
        with pytest.raises(NotFoundError):
            await desk.rate("owner", gone, 1, "")
    assert (await desk.rate("owner", "Q3", 1, "")).weight == 1.0
    assert desk.forget("Q3") and not desk.forget("Q3")
    desk.remember(ask(), make_answer("Q5", text="a" * 1_000))
    assert (await desk.rate("owner", "Q4", 1, "")).weight == 1.0


async def test_an_answer_beyond_the_bound_is_not_kept_and_harms_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "REMEMBERED_CHARS", 500)
    desk, _, _ = make_desk()
    desk.remember(ask(), make_answer("Q2", text="a" * 1_000))
    with pytest.raises(NotFoundError):
        await desk.rate("owner", "Q2", 1, "")
    desk.remember(ask(), make_answer("Q3"))
    assert (await desk.rate("owner", "Q3", 1, "")).weight == 1.0
