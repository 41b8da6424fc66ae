"""Each caller sees its own batches, also after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.errors import InvalidInputError, NotFoundError, TeacherError
from shammah_chassis.scopes import Caller
from shammah_gateway.http.batch_list import list_own
from shammah_gateway.http.batch_owners import FILE_NAME, BatchOwners

ANN, BEN = Caller("ann", frozenset({"ask"})), Caller("ben", frozenset({"ask"}))
BOSS = Caller("boss", frozenset({"ask", "admin"}))
# The account's batches, newest first; those of one caller have an even number.
ACCOUNT = [f"b{number:02d}" for number in range(20, 0, -1)]


async def test_a_batch_is_its_makers_and_the_admins_also_after_a_restart(tmp_path: Path) -> None:
    await BatchOwners(tmp_path).note("b1", ANN)
    owners = BatchOwners(tmp_path)
    owners.check("b1", ANN)
    owners.check("b1", BOSS)
    for batch in ("b1", "b2"):
        with pytest.raises(NotFoundError, match=batch):
            owners.check(batch, BEN)


async def test_a_damaged_file_hides_batches_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("[1")
    owners = BatchOwners(tmp_path)
    assert not owners.owns("b1", ANN) and owners.owns("b1", BOSS)
    await owners.note("b2", ANN)
    assert BatchOwners(tmp_path).owns("b2", ANN)


async def fetch(query: Mapping[str, str]) -> dict[str, Any]:
    """A page of three, as the API cuts it."""
    if "before_id" in query:
        end = ACCOUNT.index(query["before_id"])
        rows, more = ACCOUNT[max(0, end - 3) : end], end > 3
    else:
        start = ACCOUNT.index(query["after_id"]) + 1 if "after_id" in query else 0
        rows, more = ACCOUNT[start : start + 3], start + 3 < len(ACCOUNT)
    return {"data": [{"id": name} for name in rows], "has_more": more}


def is_even(batch: str) -> bool:
    return int(batch[1:]) % 2 == 0


@pytest.mark.parametrize(
    ("query", "expected", "more"),
    [
        ({"limit": "4"}, ["b20", "b18", "b16", "b14"], True),
        ({"limit": "4", "after_id": "b14"}, ["b12", "b10", "b08", "b06"], True),
        ({"limit": "4", "after_id": "b10"}, ["b08", "b06", "b04", "b02"], False),
        ({"limit": "2", "before_id": "b08"}, ["b12", "b10"], True),
        ({"before_id": "b16"}, ["b20", "b18"], False),
        ({"after_id": "b02"}, [], False),
        ({}, [f"b{number:02d}" for number in range(20, 0, -2)], False),
    ],
)
async def test_own_batches_are_paged_as_if_there_were_no_others(
    query: dict[str, str], expected: list[str], more: bool
) -> None:
    page = await list_own(query, is_even, fetch)
    assert [row["id"] for row in page["data"]] == expected and page["has_more"] is more
    assert (page["first_id"], page["last_id"]) == ((expected[0], expected[-1]) if expected else (None, None))


@pytest.mark.parametrize("limit", ["0", "1001", "x", "-1"])
async def test_a_limit_that_is_none_is_refused(limit: str) -> None:
    with pytest.raises(InvalidInputError, match="1 to 1000"):
        await list_own({"limit": limit}, is_even, fetch)


async def test_a_page_of_another_form_is_the_teachers_error() -> None:
    async def odd(query: Mapping[str, str]) -> dict[str, Any]:
        return {"data": [{"name": "b1"}]}

    with pytest.raises(TeacherError):
        await list_own({}, is_even, odd)
