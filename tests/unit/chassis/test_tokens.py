"""The table of tokens is read again while the service runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from shammah_chassis.errors import ForbiddenError, UnauthenticatedError
from shammah_chassis.scopes import GRANTABLE, METHOD_SCOPES, Caller, require_scope
from shammah_chassis.token_book import TokenBook, write_tokens
from shammah_chassis.tokens import LOOK_SECONDS, Entry, TokenTable

ASK = next(method for method, scope in METHOD_SCOPES.items() if scope == "ask")


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tokens(tmp_path / "tokens.json")
    return tmp_path / "tokens.json"


def test_a_grant_and_a_revocation_count_at_the_next_look(path: Path, clock: Clock) -> None:
    table, book = TokenTable.load(path, clock=clock), TokenBook(path)
    header = f"Bearer {book.add('bob', ['compare']).token}"
    with pytest.raises(UnauthenticatedError):
        table.authorise(ASK, header)
    clock.now += LOOK_SECONDS
    with pytest.raises(ForbiddenError, match="shammah tokens grant bob ask"):
        table.authorise(ASK, header)
    book.grant("bob", ["ask"])
    clock.now += LOOK_SECONDS
    assert table.authorise(ASK, header) == Caller("bob", frozenset({"ask", "compare"}))
    book.revoke("bob", ["ask"])
    clock.now += LOOK_SECONDS
    with pytest.raises(ForbiddenError):
        table.authorise(ASK, header)
    book.remove("bob")
    clock.now += LOOK_SECONDS
    with pytest.raises(UnauthenticatedError):
        table.authorise(ASK, header)


def test_the_file_is_looked_at_once_a_second_at_most(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    table = TokenTable.load(path, clock=clock)
    looks = 0
    real = os.stat

    def count(*args: object, **options: object) -> os.stat_result:
        nonlocal looks
        looks += 1
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("shammah_chassis.tokens.os.stat", count)
    for step in range(1000):
        clock.now = 100.0 + step * LOOK_SECONDS / 100
        with pytest.raises(UnauthenticatedError):
            table.authenticate("Bearer nobody")
    assert 9 <= looks <= 10


@pytest.mark.parametrize("content", ["no json", '{"tokens": []}', None])
def test_a_broken_file_leaves_the_last_good_table_in_force_and_warns(
    path: Path, clock: Clock, content: str | None
) -> None:
    header = f"Bearer {TokenBook(path).add('bob', ['ask']).token}"
    table = TokenTable.load(path, clock=clock)
    good = path.read_text()
    path.unlink()
    if content is not None:
        path.write_text(content)
    clock.now += LOOK_SECONDS
    assert table.authorise(ASK, header).name == "bob"
    assert "the grants of before hold on" in table.warning
    path.write_text(good)
    clock.now += LOOK_SECONDS
    table.refresh()
    assert table.warning == "" and table.authorise(ASK, header).name == "bob"


def test_what_changed_is_told_with_who_changed_it(path: Path, clock: Clock) -> None:
    table, seen = TokenTable.load(path, clock=clock), []
    table.on_change = lambda before, after: seen.append((before, after))
    TokenBook(path).add("bob", ["ask"])
    clock.now += LOOK_SECONDS
    table.refresh()
    ((before, after),) = seen
    added: Entry = next(entry for entry in after if entry not in before)
    assert (added.name, added.scopes) == ("bob", frozenset({"ask"})) and added.changed_by and added.changed_at > 0


def test_a_caller_is_found_by_name_with_the_scopes_of_now(path: Path, clock: Clock) -> None:
    table = TokenTable.load(path, clock=clock)
    assert table.find("bob") is None
    TokenBook(path).add("bob", ["ask"])
    clock.now += LOOK_SECONDS
    table.refresh()
    assert table.find("bob") == Caller("bob", frozenset({"ask"}))


def test_tables_of_an_earlier_version_are_read(path: Path) -> None:
    rows = json.loads(path.read_text())["tokens"]
    assert all(set(row) == {"name", "sha256", "scopes"} for row in rows)
    assert {entry.name for entry in TokenTable.load(path).entries} == {"owner", "internal"}


@pytest.mark.parametrize("scope", GRANTABLE)
def test_a_refusal_says_the_command_that_grants(scope: str) -> None:
    with pytest.raises(ForbiddenError, match=f"needs the scope '{scope}'.*: shammah tokens grant claude {scope}$"):
        require_scope(Caller("claude", frozenset()), scope)


@pytest.mark.parametrize(("name", "scope"), [("internal", "ask"), ("client", "train"), ("claude", "serve")])
def test_what_nobody_can_grant_is_refused_without_a_command(name: str, scope: str) -> None:
    with pytest.raises(ForbiddenError) as caught:
        require_scope(Caller(name, frozenset()), scope)
    assert "grant" not in caught.value.message
