"""The whole life of a service process: settings, logs, serving, and an end that says what was wrong.

It does not know which service it runs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from shammah_chassis.errors import InvalidInputError, NotFoundError, ShammahError
from shammah_chassis.logs import configure_logging
from shammah_chassis.serving import ServiceParts, run_service
from shammah_chassis.settings import ServiceSettings
from shammah_chassis.spawning import EXIT_SETTINGS

S = TypeVar("S", bound=ServiceSettings)


def run_process(
    kind: type[S],
    *,
    name: str,
    build: Callable[[S], Awaitable[ServiceParts]],
    run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run,
) -> None:
    """Run a service by the settings in the environment until SIGTERM or SIGINT; `run` brings the event loop.

    Exits with one line on standard error when it can't start: with status 78 where its settings are wrong, or a file
    that they name, so that nobody starts it again by the same ones, and with 1 for all else.
    """
    try:
        settings = kind.load()
        configure_logging(name, settings.log_level)
        run(run_service(settings, name=name, build=lambda: build(settings)))
    except ShammahError as error:
        print(f"{name}: {error.message}", file=sys.stderr, flush=True)
        sys.exit(EXIT_SETTINGS if isinstance(error, (InvalidInputError, NotFoundError)) else 1)
