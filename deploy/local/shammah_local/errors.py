"""What can go wrong with the supervisor itself, by name."""

from __future__ import annotations

from shammah_chassis.errors import ConflictError, UnavailableError


class AlreadyRunningError(ConflictError):
    """The data folder is in use; the message names the process."""

    code = "already_running"


class NotRunningError(UnavailableError):
    """Nothing runs on the data folder."""

    code = "not_running"


class PartFailedError(UnavailableError):
    """A part died too often or was not ready in time; the message quotes the end of its log."""

    code = "part_failed"
