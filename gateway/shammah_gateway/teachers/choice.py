"""Which teacher the settings name, under its budget. It knows every kind; nobody else does."""

from __future__ import annotations

import asyncio
import logging

from shammah_chassis.errors import InvalidInputError
from shammah_chassis.settings import read_secret

from shammah_gateway.config import GatewaySettings
from shammah_gateway.spending import Spending
from shammah_gateway.teachers.anthropic import AnthropicTeacher
from shammah_gateway.teachers.base import Teacher, TeacherPort
from shammah_gateway.teachers.recorded import load_recorded

_log = logging.getLogger(__name__)


async def open_teacher(settings: GatewaySettings) -> Teacher | None:
    """Return the teacher; None for "none".

    Raises:
        InvalidInputError: `recorded` without files, or a key file that can't be read.
        NotFoundError: a recorded file is not there.
    """
    if settings.teacher == "none":
        return None
    spending = Spending(
        settings.own_dir / "teacher_calls.json",
        total=settings.teacher_max_calls,
        limits={"audit": settings.audit_max_calls},
    )
    return Teacher(await _open_port(settings), spending)


async def _open_port(settings: GatewaySettings) -> TeacherPort:
    if settings.teacher == "recorded":
        if not settings.recorded_files:
            raise InvalidInputError("the recorded teacher needs SHAMMAH_GATEWAY_RECORDED_FILES")
        teacher, errors = await asyncio.to_thread(load_recorded, settings.recorded_files)
        for text in errors:
            _log.warning("recorded teacher: %s", text)
        return teacher
    return AnthropicTeacher(
        model=settings.anthropic_model,
        key=read_secret(settings.anthropic_key_file),
        base_url=settings.anthropic_base_url,
        timeout=settings.teacher_timeout_seconds,
    )
