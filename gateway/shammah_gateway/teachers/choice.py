"""Which teachers the settings name, behind their breakers; and the servers that take client traffic by bytes.

It knows every kind; nobody else does.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.settings import read_secret

from shammah_gateway.config import GatewaySettings
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.teachers.anthropic import DEFAULT_BASE_URL, AnthropicTeacher
from shammah_gateway.teachers.base import Teacher, TeacherPort
from shammah_gateway.teachers.breaker import Breaker, BreakerLimits
from shammah_gateway.teachers.fallback import FallbackTeacher
from shammah_gateway.teachers.guard import Guard
from shammah_gateway.teachers.openai_compatible import OpenAICompatibleTeacher
from shammah_gateway.teachers.recorded import load_recorded
from shammah_gateway.teachers.settings import TeacherName
from shammah_gateway.teachers.upstreams import Upstream, Upstreams
from shammah_gateway.teachers.verdicts import VerdictBook

_log = logging.getLogger(__name__)


class BreakerBoard:
    """The breakers by teacher, so that SDK and byte traffic to the same server learn from each other."""

    def __init__(self, limits: BreakerLimits) -> None:
        self._limits = limits
        self._breakers: dict[str, Breaker] = {}

    def of(self, name: str) -> Breaker:
        """Return the breaker of a teacher; it is made when there is none."""
        return self._breakers.setdefault(name, Breaker(name, self._limits))


async def open_teacher(settings: GatewaySettings, ledger: Ledger, board: BreakerBoard | None = None) -> Teacher | None:
    """Return the teachers as one, booked in a ledger; None for "none".

    Raises:
        InvalidInputError: `recorded` without files, or a key file that can't be read.
        NotFoundError: a recorded file is not there.
    """
    port = await open_port(settings, board)
    if port is None:
        return None
    verdicts = await asyncio.to_thread(VerdictBook, settings.own_dir / "verdicts.jsonl")
    return Teacher(port, ledger, verdicts=verdicts)


async def open_port(settings: GatewaySettings, board: BreakerBoard | None = None) -> FallbackTeacher | None:
    """Return the teachers in order, without a budget; raises as `open_teacher`."""
    names = settings.teacher_names
    if not names:
        return None
    board = board or BreakerBoard(settings.breaker_limits)
    ports: list[TeacherPort] = []
    for name in names:
        if name == "recorded":
            ports.append(await _load_recorded(settings))
            continue
        guard = Guard(
            board.of(name),
            policy=settings.plan_retries(last=name == names[-1]),
            seconds=settings.teacher_timeout_seconds,
        )
        ports.append(_open_remote(name, settings, guard))
    return FallbackTeacher(ports, seconds=settings.teacher_timeout_seconds)


def open_upstreams(settings: GatewaySettings, board: BreakerBoard | None = None, *, own_key: bool = True) -> Upstreams:
    """Return the servers that client traffic may be passed to by bytes, in the order of the teachers.

    `own_key` False: the client's own credentials are passed on, so they have none of ours and only the first is used.
    A backup at the same address is left out: bytes name their model themselves.

    Raises:
        InvalidInputError: a key file can't be read.
    """
    board = board or BreakerBoard(settings.breaker_limits)
    found: list[Upstream] = []
    for name in settings.teacher_names:
        upstream = _find_upstream(name, settings, own_key=own_key)
        if upstream is not None and all(upstream.base_url != other.base_url for other in found):
            found.append(upstream)
    return Upstreams([(upstream, board.of(upstream.name)) for upstream in found], only_first=not own_key)


def list_urls(settings: GatewaySettings) -> tuple[str, ...]:
    """Return the addresses that teachers are asked at, in their order; none for recorded answers."""
    found = [_find_upstream(name, settings, own_key=False) for name in settings.teacher_names]
    return tuple(dict.fromkeys(upstream.base_url for upstream in found if upstream is not None))


def _find_upstream(name: TeacherName, settings: GatewaySettings, *, own_key: bool) -> Upstream | None:
    if name == "recorded":
        return None
    if name == "openai":
        key = _read_key(settings.openai_key_file) if own_key else None
        return Upstream(
            name=name,
            protocol="chat",
            base_url=settings.openai_base_url.rstrip("/"),
            headers={"authorization": f"Bearer {key}"} if key else {},
            model=settings.openai_model,
        )
    model, base_url, key_file = _find_claude(name, settings)
    return Upstream(
        name=name,
        protocol="messages",
        base_url=(base_url or DEFAULT_BASE_URL).rstrip("/"),
        headers=_write_credentials(key_file) if own_key else {},
        model=model,
    )


def _find_claude(name: TeacherName, settings: GatewaySettings) -> tuple[str, str | None, Path | None]:
    """Return model, address and key file of `anthropic` or `anthropic_backup`."""
    if name == "anthropic":
        return settings.anthropic_model, settings.anthropic_base_url, settings.anthropic_key_file
    model = settings.anthropic_backup_model or settings.anthropic_model
    address = settings.anthropic_backup_base_url
    if address is None or address == settings.anthropic_base_url:
        # The same server: so is the key, unless it has one of its own.
        return model, settings.anthropic_base_url, settings.anthropic_backup_key_file or settings.anthropic_key_file
    return model, address, settings.anthropic_backup_key_file


def _write_credentials(key_file: Path | None) -> dict[str, str]:
    """Return the header that holds our key: of the file, else, as the SDK does, of the environment."""
    key = _read_key(key_file) or os.environ.get("ANTHROPIC_API_KEY")
    if key:
        return {"x-api-key": key}
    token = os.environ.get("ANTHROPIC_AUTH_TOKEN")
    return {"authorization": f"Bearer {token}"} if token else {}


def _read_key(path: Path | None) -> str | None:
    """Return the key of a file; an empty one is refused, as the environment's key would be sent in its place."""
    key = read_secret(path)
    if key == "":
        raise InvalidInputError(f"key file {path} is empty")
    return key


def _open_remote(name: TeacherName, settings: GatewaySettings, guard: Guard) -> TeacherPort:
    if name == "openai":
        return OpenAICompatibleTeacher(
            model=settings.openai_model,
            base_url=settings.openai_base_url,
            key=_read_key(settings.openai_key_file),
            form=settings.openai_form,
            guard=guard,
        )
    model, base_url, key_file = _find_claude(name, settings)
    return AnthropicTeacher(
        model=model,
        key=_read_key(key_file),
        base_url=base_url,
        guard=guard,
        name=name,
        batches=settings.batch_policy,
    )


async def _load_recorded(settings: GatewaySettings) -> TeacherPort:
    if not settings.recorded_files:
        raise InvalidInputError("the recorded teacher needs SHAMMAH_GATEWAY_RECORDED_FILES")
    teacher, errors = await asyncio.to_thread(load_recorded, settings.recorded_files)
    for text in errors:
        _log.warning("recorded teacher: %s", text)
    return teacher
