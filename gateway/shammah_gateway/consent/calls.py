"""Calls that people and models make, in the audit log: a line before the work, and one with what came of it.

Of arguments only digest and size are kept, unless the setting `audit_texts` says otherwise. It knows no tool.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from shammah_chassis.errors import ShammahError
from shammah_chassis.examples import canonical_json

from shammah_gateway.consent.audit import AuditLog

# What of a result is noted, where it has it: what was changed, never what was said.
TOLD = ("queued", "queue_size", "verdict", "release", "examples_trained", "swapped_at")
Outcome = dict[str, Any]


def digest_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the SHA-256 of arguments as canonical JSON, and their size in bytes."""
    data = canonical_json(dict(arguments)).encode("utf-8", "surrogatepass")
    return {"arguments_sha256": hashlib.sha256(data).hexdigest(), "arguments_bytes": len(data)}


class CallLog:
    """Notes calls. `texts` writes the arguments too."""

    def __init__(self, log: AuditLog, *, texts: bool = False) -> None:
        self._log = log
        self._texts = texts

    @asynccontextmanager
    async def watch(
        self, event: str, name: str, *, caller: str, arguments: Mapping[str, Any], waits: bool = True
    ) -> AsyncIterator[Outcome]:
        """Note a call, run the block, note how it ended; the block puts what it changed into the yielded dict.

        `waits` False is for calls that change nothing and send nothing: their line need not be on the disk first.

        Raises:
            StorageFullError: it can't be noted; the block does not run.
        """
        what = {"name": name, **digest_arguments(arguments), **({"arguments": arguments} if self._texts else {})}
        if waits:
            await self._log.note(event, caller=caller, what=what)
        else:
            self._log.check()
            self._log.jot(event, caller=caller, what=what)
        outcome: Outcome = {}
        try:
            yield outcome
        except ShammahError as error:
            outcome["error"] = error.code
            raise
        except asyncio.CancelledError:
            outcome["error"] = "cancelled"
            raise
        except BaseException:
            outcome["error"] = "internal"
            raise
        finally:
            digest = what["arguments_sha256"]
            told = {"name": name, "arguments_sha256": digest, "outcome": outcome.pop("error", "done"), **outcome}
            self._log.jot(f"{event}_done", caller=caller, what=told)


def read_outcome(result: Mapping[str, Any]) -> Outcome:
    """Return what a tool's result says was changed."""
    told = {name: result[name] for name in TOLD if result.get(name)}
    if rejected := result.get("rejected"):
        told["rejected"] = {row["reason"]: row["count"] for row in rejected}
    if job := result.get("job"):
        told["job"] = {"id": job["id"], "state": job["state"]}
    return told
