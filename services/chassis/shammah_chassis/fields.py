"""Strict reading of JSON objects: each wrong field is named in the error.

It does not know what the fields mean.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from shammah_chassis.errors import InvalidInputError


def require_object(value: object, where: str, allowed: Collection[str]) -> dict[str, Any]:
    """Return `value` as a JSON object that has exactly the fields `allowed`.

    Raises:
        InvalidInputError: not an object, or a field is unknown or missing.
    """
    if not isinstance(value, dict):
        raise InvalidInputError(f"{where}: must be a JSON object, is {_kind(value)}")
    unknown = sorted(str(key) for key in value if key not in allowed)
    if unknown:
        raise InvalidInputError(f"{where}: unknown field {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}")
    missing = sorted(key for key in allowed if key not in value)
    if missing:
        raise InvalidInputError(f"{where}: field {missing[0]!r} is missing")
    return value


def read_text(fields: Mapping[str, Any], name: str) -> str:
    """Return the text field `name`; InvalidInputError when it is anything else."""
    return check_text(fields[name], name)


def check_text(value: object, name: str) -> str:
    """Return `value` when it is text that UTF-8 can hold; InvalidInputError naming `name` otherwise."""
    if not isinstance(value, str):
        raise InvalidInputError(f"field {name!r} must be text, is {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"field {name!r} is not valid Unicode (lone surrogate)") from None
    return value


def read_texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the field `name`, a list of texts, as a tuple; InvalidInputError when it is anything else."""
    value = fields[name]
    if not isinstance(value, list | tuple):
        raise InvalidInputError(f"field {name!r} must be a list of texts, is {_kind(value)}")
    return tuple(check_text(item, f"{name}[{index}]") for index, item in enumerate(value))


def read_number(fields: Mapping[str, Any], name: str) -> float:
    """Return the finite number field `name` as float; InvalidInputError when it is anything else."""
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError(f"field {name!r} must be a number, is {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidInputError(f"field {name!r} must be a finite number")
    return number


def read_integer(fields: Mapping[str, Any], name: str) -> int:
    """Return the whole-number field `name`; InvalidInputError when it is anything else."""
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInputError(f"field {name!r} must be a whole number, is {_kind(value)}")
    return value


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", dict: "an object", list: "a list", str: "text"}
    return names.get(type(value), type(value).__name__)
