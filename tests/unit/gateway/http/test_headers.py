"""What headers say about one query, and about its answer."""

from __future__ import annotations

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_gateway.http.headers import Options, author_headers, read_options
from shammah_gateway.http.names import ModelWish

AUTO = ModelWish("auto")


def test_nothing_said_means_nothing_asked() -> None:
    assert read_options({}, AUTO) == Options()


def test_every_wish_has_a_header() -> None:
    headers = {
        "x-shammah-no-train": "1",
        "x-shammah-local-only": "true",
        "x-shammah-allow-degraded": "yes",
        "x-shammah-release": "R1",
        "x-shammah-alpha": "0.02",
    }
    wanted = Options(no_learn=True, local_only=True, allow_degraded=True, release="R1", alpha=0.02)
    assert read_options(headers, AUTO) == wanted


def test_a_local_name_may_not_be_forwarded_and_takes_a_labelled_answer() -> None:
    options = read_options({}, ModelWish("local"))
    assert options.local_only and options.allow_degraded


def test_of_two_alphas_the_stricter_one_holds() -> None:
    assert read_options({"x-shammah-alpha": "0.1"}, ModelWish("auto", alpha=0.02)).alpha == 0.02
    assert read_options({"x-shammah-alpha": "0.01"}, ModelWish("auto", alpha=0.02)).alpha == 0.01


def test_two_releases_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="R1"):
        read_options({"x-shammah-release": "R1"}, ModelWish("auto", release="R2"))


@pytest.mark.parametrize(
    "headers",
    [
        {"x-shammah-no-train": "maybe"},
        *({"x-shammah-alpha": value} for value in ("x", "0", "1", "-0.1", "nan")),
    ],
)
def test_a_value_that_means_nothing_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="x-shammah"):
        read_options(headers, AUTO)


def test_what_nobody_knows_has_no_header_and_a_category_stays_in_one_line() -> None:
    assert author_headers(route="teacher", reason="requested") == {
        "x-shammah-route": "teacher",
        "x-shammah-reason": "requested",
    }
    assert author_headers(route="local", reason="quality", category="a\r\nb é")["x-shammah-category"] == "a??b ?"
