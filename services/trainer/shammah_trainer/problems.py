"""Named errors that only a trainer can meet. Everything else comes from `shammah_chassis.errors`."""

from __future__ import annotations

from shammah_chassis.errors import ShammahError


class DivergedError(ShammahError):
    """The loss or a gradient is not a number any more; nothing of this round is kept."""

    code = "training_diverged"
    status = "INTERNAL"


class StoppedError(ShammahError):
    """The round was asked to stop (the service shuts down); its examples stay queued."""

    code = "training_stopped"
    status = "CANCELLED"


class DeviceMemoryError(ShammahError):
    """The device has no room for the smallest batch that there can be."""

    code = "out_of_memory"
    status = "RESOURCE_EXHAUSTED"
