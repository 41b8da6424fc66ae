"""The gateway's numbers for Prometheus. It only reads."""

from __future__ import annotations

from shammah_chassis.metrics import Reading

from shammah_gateway.gateway import Gateway


def list_readings(gateway: Gateway) -> list[Reading]:
    """Return what is shown under /metrics."""
    now = gateway.monitor
    teacher = gateway.teacher
    return [
        Reading("shammah_queries_total", "Queries that ended.", lambda: now.queries, total=True),
        Reading("shammah_queries_local_total", "Answered by the student.", lambda: now.local, total=True),
        Reading("shammah_queries_forwarded_total", "Answered by the teacher.", lambda: now.forwarded, total=True),
        Reading("shammah_queries_failed_total", "Queries that got an error.", lambda: now.failed, total=True),
        Reading("shammah_audits_graded_total", "Local answers that were audited.", lambda: now.audited[0], total=True),
        Reading("shammah_audits_bad_total", "Audited answers that were bad.", lambda: now.audited[1], total=True),
        Reading("shammah_examples_lost_total", "Examples without room.", lambda: now.lost_examples, total=True),
        Reading("shammah_spooled", "Envelopes that wait for the bus.", lambda: gateway.recorder.spooled),
        Reading(
            "shammah_teacher_calls_total",
            "Calls of the teacher.",
            lambda: teacher.spending.calls if teacher else 0,
            total=True,
        ),
        Reading("shammah_bus_connected", "1 while the bus is there.", lambda: gateway.bus.connected),
    ]
