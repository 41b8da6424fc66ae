"""What a session reached, as plain values and as a page: read from its journal alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from shammah_chassis.atomic import write_atomic

from shammah_gateway.cli.console import missing, percent
from shammah_gateway.money.caps import show_usd
from shammah_gateway.teach.findings import Finding, describe_exam_needs, list_exam_needs, measure, read_findings
from shammah_gateway.teach.journal import Entry
from shammah_gateway.teach.settings import TeachSettings, read_settings

JSON_NAME, PAGE_NAME = "report.json", "report.md"
_SHOWN_CHARS = 160


def make_report(session: str, entries: Sequence[Entry], *, cost: Decimal) -> dict[str, Any]:
    """Return the report of a session as plain values."""
    settings = current_settings(entries)
    calls = list(_list_calls(entries))
    analyses = [call["value"] for call in calls if call["tool"] == "analyze_model" and "value" in call]
    first = _find_first_look(calls)
    before = read_findings(first) if first is not None else {}
    after = read_findings(analyses[-1]) if analyses else {}
    ends = [entry for entry in entries if entry["kind"] == "end"]
    taught = _count_taught(calls)
    return {
        "session": session,
        "planner": settings.planner,
        "teacher": entries[0].get("teacher", ""),
        "goal": str(settings.goal),
        "measured": "mean over the categories of the certified local share on dev rows, by analyze_model"
        if settings.goal.measure == "local_share"
        else "mean over the categories of the student's accuracy on dev rows, by analyze_model",
        "before": _measure_before(before, settings),
        "after": measure(after, settings.categories, settings.goal),
        "state": ends[-1]["state"] if ends else "open",
        "reason": ends[-1]["reason"] if ends else "it has not ended",
        "rounds": sum(call["tool"] == "train" and "value" in call for call in calls),
        "examples": sum(taught.values()),
        "rejected": dict(sorted(_count_rejected(calls).items())),
        "cost_usd": str(cost),
        "planner_usd": str(sum((Decimal(e["usd"]) for e in entries if e["kind"] in ("reply", "no_reply")), Decimal(0))),
        "budget_usd": None if settings.budget_usd is None else str(settings.budget_usd),
        "seconds": sum(entry["seconds"] for entry in entries if entry["kind"] == "result"),
        "categories": [
            {
                "category": name,
                "taught": taught.get(name, 0),
                "accuracy_before": before[name].accuracy if name in before else None,
                "accuracy_after": after[name].accuracy if name in after else None,
                "local_share_before": before[name].local_share if name in before else 0.0,
                "local_share_after": after[name].local_share if name in after else 0.0,
                "certified": name in after and after[name].certified,
                "rows_missing": after[name].rows_missing if name in after else 0,
            }
            for name in sorted({*before, *after, *taught})
        ],
        "exam_needs": list_exam_needs(after, settings.categories),
        "steps": calls,
    }


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write both forms into the folder of the session."""
    write_atomic(folder / JSON_NAME, json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n", mode=0o600)
    write_atomic(folder / PAGE_NAME, describe_report(report).encode(), mode=0o600)


def describe_report(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [
        f"# Teaching session {report['session']}",
        "",
        f"Planner {report['planner']}, teacher {report['teacher'] or 'none'}, goal {report['goal']}.",
        f"Ended: {report['state']}: {report['reason']}",
        "",
        f"{report['measured'].capitalize()}: {_show(report['before'])} before, {percent(report['after'])} after.",
        f"{report['rounds']} rounds, {report['examples']} examples queued, {show_usd(Decimal(report['cost_usd']))} "
        f"(of it the planner's own calls {show_usd(Decimal(report['planner_usd']))}), "
        f"{report['seconds']:.0f} s of tool calls.",
    ]
    if report["rejected"]:
        lines.append(
            "Rejected: " + ", ".join(f"{count} {reason}" for reason, count in report["rejected"].items()) + "."
        )
    lines += ["", "| category | taught | accuracy | local share | certified |", "|---|---|---|---|---|"]
    lines += [_describe_category(row) for row in report["categories"]]
    if needs := describe_exam_needs(report["exam_needs"]):
        lines += ["", f"{needs}."]
    lines += ["", "## Steps", ""]
    lines += [f"{call['step']}. {describe_call(call)}" for call in report["steps"]]
    return "\n".join(lines) + "\n"


def describe_call(call: Mapping[str, Any]) -> str:
    """Return one step in a line: what was asked and what came of it."""
    asked = ", ".join(f"{name} {_short(value)}" for name, value in call["arguments"].items())
    head = f"{call['tool']}" + (f" ({asked})" if asked else "")
    if "value" not in call:
        return f"{head}: {call.get('error') or 'no result'}"
    return f"{head}: {describe_result(call['tool'], call['value'])}"


def describe_result(tool: str, value: Mapping[str, Any]) -> str:
    """Return what a tool said, in a line."""
    if tool == "analyze_model":
        rows = [f"{row['category']} {percent(row['accuracy'])}" for row in value["categories"]]
        return f"accuracy {percent(value['local_success'])} of {value['tested']} rows ({', '.join(rows)})"
    if tool == "generate_training_data":
        rejected = ", ".join(f"{row['count']} {row['reason']}" for row in value["rejected"])
        return f"{value['queued']} queued" + (f", rejected {rejected}" if rejected else "")
    if tool == "train":
        certified = [row["category"] for row in value["exam"] if row["certified"]]
        reasons = "; ".join(value["reasons"])
        return (
            f"{value['verdict'] or 'no verdict'}, {value['examples_trained']} examples in "
            f"{value['duration_seconds']:.0f} s, certified {', '.join(certified) or 'nothing'}"
            + (f"; {reasons}" if reasons else "")
        )
    if tool == "compare_responses":
        return f"{value['verdict']}: {value['reason']} (student: {_short(value['local_response'])})"
    return f"{_short(value['response'])} (quality {value['quality']:.2f})"


def current_settings(entries: Sequence[Entry]) -> TeachSettings:
    """Return the settings of a session as they are now: those of its begin, or of the last resume that changed them."""
    told = [entry["settings"] for entry in entries if entry["kind"] in ("session", "resumed")]
    return read_settings(told[-1])


def _list_calls(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return each step with its arguments and its outcome."""
    calls: dict[int, dict[str, Any]] = {
        entry["step"]: {"step": entry["step"], "tool": entry["tool"], "arguments": entry["arguments"]}
        for entry in entries
        if entry["kind"] == "intent"
    }
    for entry in entries:
        if entry["kind"] == "result":
            kept: dict[str, Any] = {
                name: entry[name] for name in ("value", "error_code", "error", "seconds") if name in entry
            }
            calls[entry["step"]].update(kept)
    return [calls[step] for step in sorted(calls)]


def _find_first_look(calls: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return what the first analysis said; None where a round came before it: that is no state from before."""
    for call in calls:
        if "value" not in call:
            continue
        if call["tool"] == "train":
            return None
        if call["tool"] == "analyze_model":
            value: Mapping[str, Any] = call["value"]
            return value
    return None


def _measure_before(found: Mapping[str, Finding], settings: TeachSettings) -> float | None:
    """Return how far the goal was at first. Without a look nothing was certified, and the accuracy is not known."""
    if found:
        return measure(found, settings.categories, settings.goal)
    return 0.0 if settings.goal.measure == "local_share" else None


def _count_taught(calls: Sequence[Mapping[str, Any]]) -> Counter[str]:
    taught: Counter[str] = Counter()
    for call in calls:
        if call["tool"] == "generate_training_data" and "value" in call:
            taught[call["arguments"].get("category") or "(given)"] += call["value"]["queued"]
    return taught


def _count_rejected(calls: Sequence[Mapping[str, Any]]) -> Counter[str]:
    rejected: Counter[str] = Counter()
    for call in calls:
        if call["tool"] == "generate_training_data" and "value" in call:
            for row in call["value"]["rejected"]:
                rejected[row["reason"]] += row["count"]
    return rejected


def _describe_category(row: Mapping[str, Any]) -> str:
    certified = "yes" if row["certified"] else f"no, {missing(row['rows_missing'])}"
    return (
        f"| {row['category']} | {row['taught']} | {_show(row['accuracy_before'])} -> {_show(row['accuracy_after'])} | "
        f"{_show(row['local_share_before'])} -> {_show(row['local_share_after'])} | {certified} |"
    )


def _show(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."
