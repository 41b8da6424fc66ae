"""Model names."""

from __future__ import annotations

import pytest
from shammah_chassis.errors import InvalidInputError, NotFoundError
from shammah_gateway.http.names import ModelWish, read_model


@pytest.mark.parametrize("prefix", ["", "claude-"])
@pytest.mark.parametrize("mode", ["auto", "local", "teacher"])
def test_our_names_choose_who_answers(prefix: str, mode: str) -> None:
    assert read_model(f"{prefix}shammah-{mode}") == ModelWish(mode)  # type: ignore[arg-type]


def test_an_alpha_and_a_release_may_stand_behind() -> None:
    assert read_model("shammah-auto-0.02") == ModelWish("auto", alpha=0.02)
    assert read_model("claude-shammah-auto-.5@01ARZ3NDEKTSV4RRFFQ69G5FAV") == ModelWish(
        "auto", alpha=0.5, release="01ARZ3NDEKTSV4RRFFQ69G5FAV"
    )


@pytest.mark.parametrize("name", ["claude-sonnet-5-5", "gpt-9", "my-shammah-auto", "shammahish"])
def test_any_other_id_is_the_teachers_own(name: str) -> None:
    assert read_model(name) == ModelWish("upstream", model=name)


@pytest.mark.parametrize(
    "name", ["shammah", "shammah-smart", "claude-shammah-auto-x", "shammah-auto@", "shammah-auto "]
)
def test_a_name_that_begins_as_ours_but_is_none_is_not_found(name: str) -> None:
    with pytest.raises(NotFoundError, match="shammah-local"):
        read_model(name)


@pytest.mark.parametrize("name", ["", "shammah-auto-0", "shammah-auto-1", "shammah-auto-2.5"])
def test_an_empty_name_and_an_alpha_that_is_no_share_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        read_model(name)
