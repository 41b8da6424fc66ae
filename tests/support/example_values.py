"""Builders of examples for tests: valid by default, any field can be replaced."""

from __future__ import annotations

from typing import Any

from shammah_chassis.examples import Example, Message, Provenance


def make_example(
    query: str = "What is 2 + 2?", response: str = "4", *, turns: tuple[Message, ...] = (), **changes: Any
) -> Example:
    fields: dict[str, Any] = {
        "query": turns or (Message("user", query),),
        "response": response,
        "category": "math",
        "grader": "exact",
        "provenance": Provenance(origin="dataset", licence="MIT"),
    }
    return Example(**{**fields, **changes})
