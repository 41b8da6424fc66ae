"""ULIDs: they sort by the time of making, and tell it."""

from __future__ import annotations

import pytest
from shammah_chassis.ulid import is_ulid, new_ulid, read_milliseconds


def test_a_ulid_tells_when_it_was_made_and_sorts_by_it() -> None:
    earlier, later = new_ulid(1_700_000_000.123), new_ulid(1_700_000_000.124)
    assert is_ulid(earlier) and earlier < later
    assert [read_milliseconds(one) for one in (earlier, later)] == [1_700_000_000_123, 1_700_000_000_124]


@pytest.mark.parametrize("text", ["", "R1", "8" + "0" * 25, "0" * 25 + "I"])
def test_what_is_none_tells_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="no ULID"):
        read_milliseconds(text)
