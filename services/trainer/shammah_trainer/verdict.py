"""What follows from the gate's report, and what a release answers once audits have withdrawn some of its categories.

It knows releases and reports, no rows; it does not act.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from shammah_chassis.releases import Release

from shammah_trainer.gate import GateReport


def withdraw(release: Release, names: Set[str]) -> Release:
    """Return the release as it answers while these categories are forwarded: nothing of them locally.

    The gate compares champion and candidate so, both: what the champion does not serve any more is no loss, and that
    the exam certifies it for the candidate is no gain, as it did for the champion, and audits found otherwise.
    """
    reason = "withdrawn: audits broke the promise"
    forwarded = {
        name: replace(policy, threshold=None, ladder=(), reason=reason)
        for name, policy in release.categories.items()
        if name in names and policy.threshold is not None
    }
    return replace(release, categories={**release.categories, **forwarded})


def conclude(draft: Release, gate: GateReport, *, erases: bool, withdrawn: Set[str] = frozenset()) -> Release:
    """Return the draft with the gate's verdict, reasons and report.

    `erases`: the champion's index has what was forgotten since. One that is no worse then takes over at once.
    `withdrawn`: categories in which the gate counted no local answers of either.
    """
    verdict, reasons = gate.verdict, list(gate.reasons)
    if erases and verdict == "undecided":
        verdict, reasons = "promote", [*reasons, "no worse, and without what was forgotten"]
    if withdrawn:
        listed = ", ".join(sorted(withdrawn))
        reasons.append(f"local answers in {listed} are not compared: audits withdrew what the champion did there")
    return replace(draft, verdict=verdict, reasons=tuple(reasons), report=gate.as_dict())
