from __future__ import annotations

import json

import pytest
from shammah_gateway.agreement import AgreementPolicy, check_agreement, choose, needs_check, read_answers
from shammah_gateway.teachers.base import Form, Generation, Judgement, OfferedExample, Teacher, TeacherAnswer, Wish
from support.example_values import make_example
from support.gateway import PlainTeacher, make_ledger

ROWS = [
    make_example(f"What is the code of item {n}?", f"code-{n}", category="codes", grader="exact") for n in range(40)
]


class Filler(PlainTeacher):
    """Answers a form with one text, and judges with one verdict."""

    form: str = ""
    agrees: bool = True

    async def fill(self, prompt: str, form: Form, max_tokens: int, *, seconds: float | None = None) -> TeacherAnswer:
        return TeacherAnswer(self.form, "m", "end_turn")

    async def judge(self, query: str, reference: str, response: str, *, seconds: float | None = None) -> Judgement:
        return Judgement(self.agrees, "because", "m")

    async def generate(self, wish: Wish) -> Generation:
        raise NotImplementedError


def filler(answers: object) -> Teacher:
    port = Filler()
    port.form = answers if isinstance(answers, str) else json.dumps({"answers": answers})
    return Teacher(port, make_ledger())


def test_tests_and_arithmetic_verify_themselves() -> None:
    assert not needs_check(make_example("What is 3 + 4?", "7", grader="numeric"))
    assert not needs_check(make_example("Write f.", "x", grader="unit_tests", tests="assert True"))
    assert needs_check(make_example("Tom has 3 apples and buys 4. How many?", "7", grader="numeric"))
    assert needs_check(make_example("How does it feel?", "good", grader="label"))


def test_the_share_is_the_same_each_time_and_counts_what_was_checked_before() -> None:
    half = choose(ROWS, AgreementPolicy(share=0.5), known={})
    assert half == choose(ROWS, AgreementPolicy(share=0.5), known={}) and 8 < len(half) < 32
    assert (
        set(half) < set(choose(ROWS, AgreementPolicy(), known={}))
        and choose(ROWS, AgreementPolicy(share=0), known={}) == []
    )
    known = {ROWS[5].id: "", "of another round": ""}
    assert choose(ROWS, AgreementPolicy(most=4), known=known) == [*ROWS[:2], ROWS[5]]


@pytest.mark.parametrize(
    "text", ["no JSON", "{}", '{"answers": 5}', '{"answers": [5, {"number": "1", "response": "x"}]}']
)
async def test_answers_out_of_form_leave_the_examples_unchecked(text: str) -> None:
    assert read_answers(text) == {}
    result = await check_agreement(filler(text), ROWS[:2])
    assert result.failed == {} and result.unchecked == 2


async def test_each_example_is_compared_under_its_own_grader() -> None:
    rows = [
        make_example("a", "4", grader="numeric"),
        make_example("b", '{"x": 1}', grader="json"),
        make_example("c", "good", grader="label"),
        make_example("d", "A long text about it.", grader="judge"),
    ]
    said = ["It is 4.0", '{"x": 1.0}', "bad", "Another long text."]
    answers = [{"number": number, "response": text} for number, text in enumerate(said, 1)]
    samples = [OfferedExample(query="s", response="good", grader="label")]
    result = await check_agreement(filler(answers), rows, samples=samples)
    assert set(result.failed) == {rows[2].id} and result.unchecked == 0
    assert result.failed[rows[2].id] == "a second answer is 'bad', not 'good'"


async def test_a_judge_that_disagrees_rejects_free_text() -> None:
    teacher = filler([{"number": 1, "response": "Something else."}])
    port = teacher.port
    assert isinstance(port, Filler)
    port.agrees = False
    row = make_example("d", "A long text about it.", grader="similarity")
    result = await check_agreement(teacher, [row])
    assert result.failed == {row.id: "a second answer says something else: because"}
