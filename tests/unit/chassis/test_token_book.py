"""Changing the table of tokens."""

from __future__ import annotations

import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from shammah_chassis.errors import InvalidInputError, NotFoundError, ShammahError
from shammah_chassis.token_book import CLAUDE, TokenBook, write_tokens
from shammah_chassis.tokens import TokenTable, hash_token


@pytest.fixture
def book(tmp_path: Path) -> TokenBook:
    write_tokens(tmp_path / "tokens.json")
    return TokenBook(tmp_path / "tokens.json")


def scopes_of(book: TokenBook, name: str) -> frozenset[str] | None:
    return next((entry.scopes for entry in book.list() if entry.name == name), None)


def test_a_new_token_works_and_stands_nowhere(book: TokenBook, tmp_path: Path) -> None:
    made = book.add("bob", ["ask", "analyze"])
    table = TokenTable.load(tmp_path / "tokens.json")
    assert table.authenticate(f"Bearer {made.token}").scopes == {"ask", "analyze"}
    for path in tmp_path.iterdir():
        assert made.token not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.token not in repr(book.list())


def test_nobody_is_claude_until_it_is_granted_something(book: TokenBook) -> None:
    assert scopes_of(book, CLAUDE) is None and not book.claude_file.exists()
    made = book.grant(CLAUDE, ["train"])
    assert scopes_of(book, CLAUDE) == {"train"}
    assert book.claude_file.read_text().strip() == made.token
    assert stat.S_IMODE(book.claude_file.stat().st_mode) == 0o600
    more = book.grant(CLAUDE, ["ask"])
    assert more.token == "" and more.entry.scopes == {"train", "ask"}
    assert book.claude_file.read_text().strip() == made.token


def test_a_claude_token_that_was_lost_is_made_again_with_what_it_had(book: TokenBook, tmp_path: Path) -> None:
    book.grant(CLAUDE, ["train"])
    book.claude_file.unlink()
    again = book.grant(CLAUDE, ["ask"])
    assert again.token and again.entry.scopes == {"train", "ask"}
    assert TokenTable.load(tmp_path / "tokens.json").authenticate(f"Bearer {again.token}").name == CLAUDE


def test_scopes_are_taken_and_a_token_goes(book: TokenBook) -> None:
    book.grant(CLAUDE, ["ask", "train", "compare"])
    assert book.revoke(CLAUDE, ["train"]).entry.scopes == {"ask", "compare"}
    assert book.revoke(CLAUDE, []).entry.scopes == frozenset()
    book.remove(CLAUDE)
    assert scopes_of(book, CLAUDE) is None and not book.claude_file.exists()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda book: book.add("bob", []), InvalidInputError),
        (lambda book: book.add("bob", ["serve"]), InvalidInputError),
        (lambda book: book.add("bob", ["fly"]), InvalidInputError),
        (lambda book: book.add("../bob", ["ask"]), InvalidInputError),
        (lambda book: book.add("Bob", ["ask"]), InvalidInputError),
        (lambda book: book.add("", ["ask"]), InvalidInputError),
        (lambda book: book.add("client", ["ask"]), InvalidInputError),
        (lambda book: book.grant("bob", ["ask"]), NotFoundError),
        (lambda book: book.revoke("bob", ["ask"]), NotFoundError),
        (lambda book: book.remove("bob"), NotFoundError),
        (lambda book: book.remove("owner"), InvalidInputError),
        (lambda book: book.revoke("owner", ["ask"]), InvalidInputError),
        (lambda book: book.grant("internal", ["ask"]), InvalidInputError),
    ],
)
def test_what_is_not_allowed_changes_nothing(
    book: TokenBook, tmp_path: Path, change: Callable[[TokenBook], object], error: type[ShammahError]
) -> None:
    before = (tmp_path / "tokens.json").read_bytes()
    with pytest.raises(error):
        change(book)
    assert (tmp_path / "tokens.json").read_bytes() == before


def test_a_name_is_given_once(book: TokenBook) -> None:
    book.add("bob", ["ask"])
    with pytest.raises(InvalidInputError, match="already"):
        book.add("bob", ["train"])
    assert scopes_of(book, "bob") == {"ask"}


def test_a_damaged_table_is_refused_and_left_as_it_is(book: TokenBook, tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(InvalidInputError, match="can't be used"):
        book.grant(CLAUDE, ["ask"])
    assert (tmp_path / "tokens.json").read_text() == "{"


def test_changes_at_the_same_time_are_all_kept(book: TokenBook, tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda name: TokenBook(tmp_path / "tokens.json").add(name, ["ask"]), names))
    assert {entry.name for entry in book.list()} == {"owner", "internal", *names}
    known = {entry.sha256 for entry in book.list()}
    assert all(hash_token(one.token) in known for one in made)
