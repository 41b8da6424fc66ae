"""Run a teaching session from its begin, or from where it was left, to its end and its report."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

from shammah.v1 import gateway_pb2
from shammah_chassis.errors import PreconditionError, TeacherAuthError

from shammah_gateway.cli.paths import Connection
from shammah_gateway.teach.claude import ClaudePlanner
from shammah_gateway.teach.ending import TeachingEndError
from shammah_gateway.teach.journal import Journal, create_journal, find_session, open_journal
from shammah_gateway.teach.link import GatewayLink, Patience
from shammah_gateway.teach.report import current_settings, make_report, write_report
from shammah_gateway.teach.rules import RulesPlanner
from shammah_gateway.teach.session import Session, Watcher
from shammah_gateway.teach.settings import Planner, TeachSettings, change_settings
from shammah_gateway.teach.spending import read_spending, read_tariff, read_teacher

KEY_VARIABLE = "ANTHROPIC_API_KEY"
Report = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claude:
    """How Claude is reached by the planner: key (None: from the environment) and address (None: the API's own)."""

    key: str | None = None
    base_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a session runs: the folder of all sessions, and where the gateway is (asked again when it was away)."""

    root: Path
    find: Callable[[], Connection]
    patience: Patience | None = None
    claude: Claude = Claude()


async def teach(place: Place, settings: TeachSettings, make_watcher: Callable[[TeachSettings], Watcher]) -> Report:
    """Begin a session and run it to its end; returns its report.

    Raises:
        ShammahError: it could not begin (no gateway, no key, a scope is missing).
    """
    _check_key(settings.planner, place.claude)
    async with GatewayLink(place.find, patience=place.patience) as link:
        status = await link.read_status()
        journal = create_journal(place.root)
        try:
            values = {"settings": settings.to_json(), "teacher": read_teacher(status)}
            journal.append("session", {**values, "spending": read_spending(status).to_json()})
            return await _run(journal, settings, link, status, make_watcher(settings), place)
        finally:
            journal.close()


async def resume(
    place: Place,
    name: str,
    make_watcher: Callable[[TeachSettings], Watcher],
    **given: Any,  # noqa: ANN401 - one type a field of the settings
) -> Report:
    """Go on with a session ("last" is the newest), with the settings that are given changed; returns its report.

    Raises:
        NotFoundError, ConflictError, ArtifactError: as `open_journal`. ShammahError: as `teach`.
    """
    journal = open_journal(find_session(place.root, name))
    try:
        if not journal.of("session"):
            raise PreconditionError(f"session {journal.session} was killed before its first line; start a new one")
        settings = change_settings(current_settings(journal.entries), **given)
        _check_key(settings.planner, place.claude)
        async with GatewayLink(place.find, patience=place.patience) as link:
            status = await link.read_status()
            journal.append("resumed", {"settings": settings.to_json()})
            return await _run(journal, settings, link, status, make_watcher(settings), place)
    finally:
        journal.close()


async def choose_planner(place: Place) -> Planner:
    """Return `rules` where the gateway's teacher calls no model (recorded, or none), else `claude`."""
    async with GatewayLink(place.find, patience=place.patience) as link:
        teacher = read_teacher(await link.read_status())
    return "rules" if teacher in ("", "recorded") else "claude"


async def _run(
    journal: Journal,
    settings: TeachSettings,
    link: GatewayLink,
    status: gateway_pb2.GetStatusResponse,
    watcher: Watcher,
    place: Place,
) -> Report:
    session = Session(journal, settings, link, watcher, tariff=read_tariff(status))
    try:
        await _plan(session, place.claude)()
    except TeachingEndError as end:
        journal.append("end", {"state": end.state, "reason": end.message, "asked": session.steps_done})
    finally:
        # Whatever ended it (Ctrl-C too): what is known by now is written.
        report = _write(journal, session.cost)
    return report


def _plan(session: Session, claude: Claude) -> Callable[[], Awaitable[NoReturn]]:
    if session.settings.planner == "rules":
        return RulesPlanner(session).run
    return ClaudePlanner(session, key=claude.key, base_url=claude.base_url).run


def _write(journal: Journal, cost: Decimal) -> Report:
    report = make_report(journal.session, journal.entries, cost=cost)
    write_report(journal.folder, report)
    return report


def _check_key(planner: Planner, claude: Claude) -> None:
    if planner == "claude" and not (claude.key or os.environ.get(KEY_VARIABLE)):
        raise TeacherAuthError(
            f"the planner claude needs a key of the Claude API: set {KEY_VARIABLE} or give --key-file; "
            "--planner rules teaches without one"
        )
