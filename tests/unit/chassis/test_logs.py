import json
import logging
import sys

import pytest
from shammah_chassis.errors import ForbiddenError, UnauthenticatedError
from shammah_chassis.logs import JsonFormatter, configure_logging, level_of, request_id


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


def test_calls_without_a_token_do_not_fill_the_log() -> None:
    assert level_of(UnauthenticatedError("a token is needed")) == logging.DEBUG
    assert level_of(ForbiddenError("scope ask is missing")) == logging.INFO


@pytest.mark.parametrize(("level", "least"), [("DEBUG", "WARNING"), ("INFO", "WARNING"), ("ERROR", "ERROR")])
def test_http_clients_do_not_tell_of_every_request(level: str, least: str) -> None:
    loggers = [logging.getLogger(name) for name in ("", "httpx", "httpx2")]
    before = [(logger, logger.level, logger.handlers) for logger in loggers]
    try:
        loggers[0].handlers = []
        configure_logging("gateway", level)
        assert [logging.getLevelName(logger.level) for logger in loggers] == [level, least, least]
    finally:
        for logger, old, handlers in before:
            logger.handlers = handlers
            logger.setLevel(old)
