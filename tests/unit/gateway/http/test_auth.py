"""Who may call which route."""

from __future__ import annotations

import pytest
from shammah_chassis.errors import ForbiddenError, UnauthenticatedError
from shammah_chassis.scopes import SCOPES, Caller
from shammah_chassis.tokens import TokenTable, hash_token
from shammah_gateway.feedback import FeedbackDesk
from shammah_gateway.frontdesk import FrontDesk
from shammah_gateway.http.app import make_app
from shammah_gateway.http.auth import ROUTE_SCOPES, Gatekeeper, read_credential
from shammah_gateway.http.door import Door
from shammah_gateway.http.settings import HttpSettings
from starlette.routing import Route
from support.gateway import Bench


def keeper(*, let_anybody: bool = False) -> Gatekeeper:
    callers = {hash_token("right"): Caller("owner", frozenset({"ask"}))}
    return Gatekeeper(TokenTable(callers), let_anybody=let_anybody)


def make_door() -> Door:
    bench = Bench()
    desk = FrontDesk(bench.cascade, bench.monitor, FeedbackDesk(bench.sink, daily_weight=10))
    return Door(desk, keeper(), HttpSettings.model_validate({}))


def test_every_route_has_a_scope_and_every_scope_a_route() -> None:
    made = {
        (method, route.path)
        for route in make_app(make_door()).routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert made == set(ROUTE_SCOPES)
    assert set(ROUTE_SCOPES.values()) <= {"", *SCOPES}
    assert [route for route, scope in ROUTE_SCOPES.items() if scope == ""] == [("GET", "/")]


def test_a_route_without_a_scope_can_not_be_made() -> None:
    with pytest.raises(KeyError):
        make_door().route("GET", "/v1/secret", lambda request, caller: None, style="anthropic")  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("headers", "credential"),
    [
        ({"authorization": "Bearer right"}, "right"),
        ({"authorization": "bearer  right "}, "right"),
        ({"x-api-key": "right"}, "right"),
        ({"authorization": "Basic abc", "x-api-key": "right"}, "right"),
        ({"authorization": "Bearer right", "x-api-key": "other"}, "right"),
        ({}, ""),
    ],
)
def test_both_headers_carry_a_credential(headers: dict[str, str], credential: str) -> None:
    assert read_credential(headers) == credential


def test_a_known_token_with_the_scope_is_admitted() -> None:
    assert keeper().admit("right", "ask").name == "owner"


@pytest.mark.parametrize("credential", ["", "wrong"])
def test_no_token_and_an_unknown_one_are_turned_away(credential: str) -> None:
    with pytest.raises(UnauthenticatedError):
        keeper().admit(credential, "ask")


def test_a_token_without_the_scope_is_turned_away() -> None:
    with pytest.raises(ForbiddenError, match="admin"):
        keeper().admit("right", "admin")


def test_with_the_clients_own_key_anybody_may_ask_and_nothing_else() -> None:
    open_keeper = keeper(let_anybody=True)
    assert open_keeper.admit("sk-ant-anything", "ask").name == "client"
    with pytest.raises(UnauthenticatedError, match="http_credentials=client"):
        open_keeper.admit("right", "ask")
    with pytest.raises(ForbiddenError):
        open_keeper.admit("sk-ant-anything", "admin")
    with pytest.raises(UnauthenticatedError):
        open_keeper.admit("", "ask")
