from __future__ import annotations

import httpx2
import pytest
from shammah_chassis.errors import NotFoundError
from shammah_chassis.scopes import Caller
from shammah_chassis.tokens import TokenTable, hash_token
from shammah_gateway.feedback import FeedbackDesk
from shammah_gateway.frontdesk import FrontDesk
from shammah_gateway.http import feedback_route, models
from shammah_gateway.http.auth import Gatekeeper
from shammah_gateway.http.door import Door
from shammah_gateway.http.settings import HttpSettings
from starlette.applications import Starlette
from support.gateway import Bench, Sink, ask

BEARER = {"authorization": "Bearer t"}
CLAUDE = {"x-api-key": "t", "anthropic-version": "2026-10-21"}


class Site:
    """The two small routes over a scripted cascade."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.sink = Sink()
        desk = FrontDesk(self.bench.cascade, self.bench.monitor, FeedbackDesk(self.sink, daily_weight=200))
        callers = {hash_token("t"): Caller("owner", frozenset({"ask"})), hash_token("s"): Caller("s", frozenset())}
        self.door = Door(desk, Gatekeeper(TokenTable(callers)), HttpSettings.model_validate({}))
        app = Starlette(routes=[*models.routes(self.door), *feedback_route.routes(self.door)])
        self.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://x")


@pytest.fixture
def site() -> Site:
    return Site()


async def test_openai_clients_get_the_short_names(site: Site) -> None:
    found = (await site.client.get("/v1/models", headers=BEARER)).json()
    assert found["object"] == "list"
    assert [row["id"] for row in found["data"]] == ["shammah-auto", "shammah-local", "shammah-teacher"]
    assert set(found["data"][0]) == {"id", "object", "created", "owned_by"}


async def test_anthropic_clients_get_names_that_begin_with_claude(site: Site) -> None:
    found = (await site.client.get("/v1/models", headers=CLAUDE)).json()
    names = ["claude-shammah-auto", "claude-shammah-local", "claude-shammah-teacher"]
    assert [row["id"] for row in found["data"]] == names
    assert (found["has_more"], found["first_id"], found["last_id"]) == (False, names[0], names[-1])
    assert found["data"][0]["created_at"] == "2026-11-22T00:00:00Z"
    assert {row["lifecycle"] for row in found["data"]} == {"active"}


async def test_one_model_is_described_with_its_alpha(site: Site) -> None:
    found = (await site.client.get("/v1/models/shammah-auto-0.02", headers=BEARER)).json()
    assert found["id"] == "shammah-auto-0.02"
    with pytest.raises(NotFoundError):
        models.write_model("gpt-9", anthropic=False)


@pytest.mark.parametrize("path", ["/v1/models/gpt-9", "/v1/models/shammah-most"])
async def test_an_unknown_model_is_not_found_in_the_shape_of_who_asks(site: Site, path: str) -> None:
    openai, claude = await site.client.get(path, headers=BEARER), await site.client.get(path, headers=CLAUDE)
    assert (openai.status_code, claude.status_code) == (404, 404)
    assert openai.json()["error"]["code"] == "not_found" and "type" not in openai.json()
    assert claude.json()["type"] == "error" and claude.json()["error"]["type"] == "not_found_error"


async def test_without_a_token_nothing_is_listed(site: Site) -> None:
    openai = await site.client.get("/v1/models")
    assert openai.status_code == 401 and openai.json()["error"]["code"] == "invalid_api_key"
    claude = await site.client.get("/v1/models", headers={"anthropic-version": "2026-10-21"})
    assert claude.status_code == 401 and claude.json()["error"]["type"] == "authentication_error"
    assert (await site.client.get("/v1/models", headers={"authorization": "Bearer s"})).status_code == 403


async def test_a_rating_with_a_correction_becomes_an_example(site: Site) -> None:
    answer = await site.door.gateway.ask(ask())
    body = {"request_id": f"chatcmpl-{answer.query_id}", "rating": "bad", "correction": "Lyon"}
    told = await site.client.post("/v1/feedback", json=body, headers=BEARER)
    assert told.json() == {"request_id": answer.query_id, "effect": "example", "weight": 10.0}
    assert site.sink.examples[0].response == "Lyon"


async def test_feedback_on_an_answer_that_nobody_gave_is_not_found(site: Site) -> None:
    told = await site.client.post("/v1/feedback", json={"request_id": "x", "rating": "good"}, headers=BEARER)
    assert told.status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"request_id": "x"},
        {"request_id": 3, "rating": "good"},
        {"request_id": "x", "rating": 1},
        {"request_id": "x", "rating": ["good"]},
        {"request_id": "x", "rating": "good", "correction": 2},
        {"request_id": "x", "rating": "good", "wombat": 1},
    ],
)
async def test_feedback_that_is_not_of_its_form_is_refused(site: Site, body: dict[str, object]) -> None:
    told = await site.client.post("/v1/feedback", json=body, headers=BEARER)
    assert told.status_code == 400 and told.json()["error"]["type"] == "invalid_request_error"


async def test_a_good_rating_with_a_correction_contradicts_itself(site: Site) -> None:
    answer = await site.door.gateway.ask(ask())
    body = {"request_id": answer.query_id, "rating": "good", "correction": "Lyon"}
    assert (await site.client.post("/v1/feedback", json=body, headers=BEARER)).status_code == 400
