"""Grader `json`: equality of parsed JSON, and the form of the BFCL benchmark with several accepted values per argument.

It knows nothing of the tools that a call names.
"""

from __future__ import annotations

import json
from typing import Any

from shammah_chassis.examples import Example
from shammah_chassis.grading.fences import strip_fence
from shammah_chassis.grading.grade import Grade


def grade_json(response: str, example: Example) -> Grade:
    """Good when the reply (a fenced block or all of it) is JSON equal to the reference or `accepted`.

    Key order is ignored, text values are compared case-insensitively, 1 equals 1.0, true is not 1. `accepted`
    (https://github.com/ShishirPatil/gorilla, BFCL): {function: {argument: [accepted values]}}; "" = may be absent.
    """
    try:
        reply = _parse(response)
    except ValueError as error:
        return Grade(False, example.grader, f"the reply is not JSON: {error}")
    if example.accepted is not None:
        problem = _check_call(reply, example.accepted)
        return Grade(not problem, example.grader, problem or "an accepted call")
    try:
        reference = _parse(example.reference)
    except ValueError as error:
        return Grade(None, example.grader, f"the reference is not JSON: {error}")
    good = are_equal(reply, reference)
    return Grade(good, example.grader, "equal" if good else "not equal to the reference")


def are_equal(left: object, right: object) -> bool:
    """Return whether two parsed JSON values are equal (see `grade_json`)."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(are_equal(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(are_equal, left, right))
    if isinstance(left, str) and isinstance(right, str):
        return left.strip().casefold() == right.strip().casefold()
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _check_call(call: object, accepted: dict[str, Any]) -> str:
    """Return "" when `call` is one of the accepted calls, else what is wrong."""
    if not isinstance(call, dict) or call.keys() != {"name", "arguments"}:
        return 'a call is an object with the keys "name" and "arguments"'
    wanted = next((args for name, args in accepted.items() if are_equal(call["name"], name)), None)
    if wanted is None:
        return f"calls {call['name']!r}, not {' or '.join(accepted)}"
    if not isinstance(call["arguments"], dict):
        return '"arguments" is no object'
    return _check_arguments(call["arguments"], wanted)


def _check_arguments(arguments: dict[str, Any], wanted: dict[str, Any]) -> str:
    for name in arguments:
        if name not in wanted:
            return f"argument {name!r} is not accepted"
    for name, values in wanted.items():
        if name not in arguments:
            if "" not in values:
                return f"argument {name!r} is missing"
        # Nothing listed: BFCL writes the one accepted value "empty list" so.
        elif not any(_is_accepted(arguments[name], value) for value in values or [[]]):
            return f"argument {name!r} has another value"
    return ""


def _is_accepted(value: object, accepted: object) -> bool:
    """Objects inside `accepted` list the accepted values of each key again, also within lists."""
    if isinstance(accepted, dict):
        lists = {key: item if isinstance(item, list) else [item] for key, item in accepted.items()}
        return isinstance(value, dict) and not _check_arguments(value, lists)
    if isinstance(accepted, list):
        if not isinstance(value, list) or len(value) != len(accepted):
            return False
        return all(map(_is_accepted, value, accepted))
    return are_equal(value, accepted)


def _parse(text: str) -> object:
    try:
        parsed: object = json.loads(strip_fence(text), parse_constant=_reject_constant)
        return parsed
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
