import json
import logging
import sys

from shammah_chassis.logs import JsonFormatter, request_id


def make_record(**changes: object) -> logging.LogRecord:
    record = logging.LogRecord("some.part", logging.WARNING, "file.py", 1, "held %s", ("ü",), None)
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def test_a_record_becomes_one_line_of_json_with_the_request_it_belongs_to() -> None:
    token = request_id.set("r-1")
    try:
        line = JsonFormatter("router").format(make_record())
    finally:
        request_id.reset(token)
    assert "\n" not in line
    value = json.loads(line)
    assert value.pop("time").endswith("+00:00")
    assert value == {
        "level": "WARNING",
        "service": "router",
        "logger": "some.part",
        "message": "held ü",
        "request_id": "r-1",
    }


def test_an_exception_is_told_with_its_trace() -> None:
    try:
        raise ValueError("odd")
    except ValueError:
        record = make_record(exc_info=sys.exc_info())
    value = json.loads(JsonFormatter("router").format(record))
    assert "ValueError: odd" in value["error"]
    assert "request_id" not in value
