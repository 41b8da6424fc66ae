"""One field of a JSON object is replaced; every other byte stays."""

from __future__ import annotations

import json

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_gateway.http.splice import replace_top_level


def test_only_the_value_of_the_objects_own_field_changes() -> None:
    body = b'{ "a" : 1.0,\n\t"model" :"old", "x":{"model":"old"}, "t":"\\"model\\":\\"old\\"", "u":"\xc3\xa9\\u00e9" } '
    assert replace_top_level(body, "model", "new") == body.replace(b':"old", "x"', b':"new", "x"')


def test_a_field_that_is_there_twice_is_replaced_twice() -> None:
    assert replace_top_level(b'{"model":"a","model":"b"}', "model", "c") == b'{"model":"c","model":"c"}'


@pytest.mark.parametrize("body", [b"{}", b'{"a":[1,{"model":"x"}]}', b'{"a":null}'])
def test_an_object_without_the_field_stays_as_it_is(body: bytes) -> None:
    assert replace_top_level(body, "model", "new") == body


def test_the_new_value_is_written_as_json() -> None:
    assert json.loads(replace_top_level(b'{"model":1}', "model", 'a"b'))["model"] == 'a"b'


@pytest.mark.parametrize("body", [b"", b"[]", b'{"a":', b'{"a" 1', b"\xff", b'{"model"'])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInputError):
        replace_top_level(body, "model", "new")
