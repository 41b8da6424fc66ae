"""Offers and generations as JSON values, for the saved state of a job: what was paid for is there after a restart."""

from __future__ import annotations

from typing import Any

from shammah_chassis.examples import Example

from shammah_gateway.teachers.ports import Generation, OfferedExample


def write_generation_json(made: Generation) -> dict[str, Any]:
    """Return the examples of a generation; its usage is left out, since that is booked."""
    return {
        "model": made.model,
        "broken": list(made.broken),
        "short": made.short,
        "examples": [_write_offer(offer) for offer in made.examples],
    }


def read_generation_json(value: dict[str, Any]) -> Generation:
    """Read what `write_generation_json` wrote; raises InvalidInputError or KeyError for anything else."""
    offers = tuple(_read_offer(row) for row in value["examples"])
    return Generation(offers, value["model"], broken=tuple(value["broken"]), short=value["short"])


def _write_offer(offer: OfferedExample) -> dict[str, Any]:
    return {
        "query": offer.query,
        "response": offer.response,
        "category": offer.category,
        "grader": offer.grader,
        "known": None if offer.known is None else offer.known.to_json(),
    }


def _read_offer(row: dict[str, Any]) -> OfferedExample:
    known = row["known"]
    return OfferedExample(**{**row, "known": None if known is None else Example.from_json(known)})
