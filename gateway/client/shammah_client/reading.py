"""Between the contract's messages and the dataclasses of this package: by the names of the fields.

It knows no particular message.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Hashable
from typing import Any, TypeGuard, TypeVar, cast, get_args, get_origin, get_type_hints

from google.protobuf.message import Message as Proto

T = TypeVar("T")


def read_message(kind: type[T], message: Proto) -> T:
    """Return a dataclass filled from a message that has fields of the same names.

    An enum becomes its name without the common prefix, in lower case ("ROUTE_LOCAL" -> "local"); a message that is
    not set becomes None where the dataclass allows it.

    Raises:
        KeyError: the message lacks a field of the dataclass.
    """
    values = {name: _read_field(message, name, hint) for name, hint in _hints(cast("Hashable", kind))}
    return kind(**values)


@functools.cache
def _hints(kind: Hashable) -> tuple[tuple[str, Any], ...]:
    assert isinstance(kind, type) and dataclasses.is_dataclass(kind)
    found = get_type_hints(kind)
    return tuple((item.name, found[item.name]) for item in dataclasses.fields(kind))


def _read_field(message: Proto, name: str, hint: Any) -> Any:  # noqa: ANN401 - a value of any field
    enum = message.DESCRIPTOR.fields_by_name[name].enum_type
    value = getattr(message, name)
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return tuple(read_message(inner, one) for one in value) if _is_kind(inner) else tuple(value)
    if isinstance(hint, types.UnionType):
        if not message.HasField(name):
            return None
        hint = get_args(hint)[0]
    if _is_kind(hint):
        return read_message(hint, value)
    return value if enum is None else _name_of({one.number: one.name for one in enum.values}, value)


def _is_kind(hint: object) -> TypeGuard[type[Any]]:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _name_of(names: dict[int, str], number: int) -> str:
    """Return the word of an enum's value; one that this client is too old for is its number."""
    if number not in names:
        return str(number)
    # By the style of the contract the value 0 is PREFIX_UNSPECIFIED.
    prefix = names[0].removesuffix("UNSPECIFIED")
    return "" if number == 0 else names[number].removeprefix(prefix).lower()
