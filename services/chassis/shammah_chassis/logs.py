"""Logs as one JSON object a line on standard error, each with the id of the request that it belongs to.

It does not know who reads them; the request id is set by the interceptor.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

from shammah_chassis.errors import ShammahError, UnauthenticatedError

# Clients of others: each writes a line for every request that is made of it.
_CHATTY = ("httpx", "httpx2", "httpcore", "httpcore2")
request_id: ContextVar[str] = ContextVar("request_id", default="")


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time, level, service, logger, message, request id and error if there is one."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := request_id.get():
            line["request_id"] = request
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(service: str, level: str) -> None:
    """Send all logs of this process to standard error as JSON, from `level` upwards."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def level_of(error: ShammahError) -> int:
    """Return the level at which a named error of a call is logged.

    Anybody may send calls without a token, as many as he likes: those must not fill the log.
    """
    return logging.DEBUG if isinstance(error, UnauthenticatedError) else logging.INFO
