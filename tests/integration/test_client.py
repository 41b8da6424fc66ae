"""The Python client against a real gateway."""

from __future__ import annotations

from decimal import Decimal

import pytest
from shammah_client import AsyncClient, Client, Example, OfferedExample, errors
from support.doors import Doors


@pytest.fixture
def client(doors: Doors) -> Client:
    return doors.client


def test_a_question_is_answered_and_the_answer_can_be_rated(doors: Doors, client: Client) -> None:
    answer = client.ask("Where is Rome?")
    assert (answer.text, answer.route, answer.reason) == ("local: Where is Rome?", "local", "quality")
    assert (answer.category, answer.versions.release, answer.output_tokens) == ("capitals", doors.release.id, 2)
    assert answer.stop_reason == "end_turn" and answer.attempt is None
    assert client.send_feedback(answer.query_id, -1, correction="In Italy").effect == "example"
    assert doors.wait_for_example("Where is Rome?").response == "In Italy"


def test_a_forwarded_question_costs_and_shows_the_attempt(doors: Doors, client: Client) -> None:
    doors.cluster.script.quality = 0.1
    before = doors.spent()
    answer = client.ask("Who painted it?", want_attempt=True)
    assert (answer.text, answer.route, answer.reason, answer.teacher_model) == (
        "Paris",
        "teacher",
        "low_quality",
        "claude-sonnet-5-5",
    )
    assert answer.attempt is not None and answer.attempt.text == "local: Who painted it?"
    assert (answer.input_tokens, answer.output_tokens) == (12, 3)
    after = doors.spent()
    assert after.calls == before.calls + 1 and Decimal(after.usd) > Decimal(before.usd)


def test_options_reach_the_cascade(doors: Doors, client: Client) -> None:
    doors.cluster.script.quality = 0.1
    assert client.ask("Who sang?", local_only=True, allow_degraded=True).route == "degraded"
    with pytest.raises(errors.ShammahError):
        client.ask("Who sang?", local_only=True)
    assert doors.stub.calls == []
    with pytest.raises(errors.UnknownReleaseError):
        client.ask("x", release="01ARZ3NDEKTSV4RRFFQ69G5FAV")


def test_tools_examples_releases_and_status(doors: Doors, client: Client) -> None:
    local = client.query_local_model("Where is Oslo?")
    assert (local.response, local.hallucination_risk, local.would_serve) == ("local: Where is Oslo?", "low", True)
    compared = client.compare_responses("Where is Bern?", teacher_response="local: Where is Bern?")
    assert compared.verdict == "agree" and compared.job is not None
    assert client.wait_for_job(compared.job.id).result["similarity"] == 1.0
    assert client.compare_responses(job=compared.job.id).teacher_response == "local: Where is Bern?"
    sent = client.submit_examples([Example(query="Capital of Peru?", response="Lima", category="capitals")])
    assert (sent.queued, sent.rejected) == (1, ())
    assert doors.wait_for_example("Capital of Peru?").provenance.origin == "dataset"
    (release,) = client.list_releases()
    assert (release.id, release.state, release.pinned) == (doors.release.id, "champion", False)
    assert client.pin_release(release.id).pinned
    assert not client.pin_release(release.id, pinned=False).pinned
    status = client.get_status()
    assert status.champion == release.id and status.money is not None
    assert {part.name for part in status.parts} >= {"router", "generator", "validator", "teacher"}


def test_errors_have_their_names(doors: Doors, client: Client) -> None:
    with pytest.raises(errors.TooLongError):
        client.ask("x" * 32_001)
    with pytest.raises(errors.NotFoundError):
        client.get_job("nope")
    with pytest.raises(errors.NotFoundError):
        client.send_feedback("nope", 1)
    with pytest.raises(errors.InvalidInputError):
        client.generate_training_data("poems", 3, examples=[OfferedExample(query="", response="")] * 300)
    with Client(doors.address, token=doors.cluster.tokens["guest"]) as guest:
        assert guest.ask("Where is Rome?").route == "local"
        with pytest.raises(errors.ForbiddenError, match="analyze"):
            guest.get_status()
    with Client(doors.address, token="nobody's") as nobody, pytest.raises(errors.UnauthenticatedError):
        nobody.ask("x")


async def test_the_async_client_finds_the_data_folder(doors: Doors) -> None:
    async with AsyncClient(data_dir=doors.folder) as client:
        assert (await client.ask("Where is Kyiv?")).text == "local: Where is Kyiv?"
        assert (await client.get_status()).champion == doors.release.id
