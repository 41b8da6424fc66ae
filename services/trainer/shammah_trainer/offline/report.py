"""The result of a study as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def write_report(result: Mapping[str, Any]) -> str:
    """Return lines about phases, verdict, certificates and the test rows, by category."""
    test = result["test"]
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result["phase_seconds"].items())
    rows = ", ".join(f"{count} {part}" for part, count in result["rows"].items())
    lines = [
        f"release {result['release']}: {result['verdict']}" + ("" if result["published"] else " (not published)"),
        *(f"  {reason}" for reason in result["reasons"]),
        f"rows: {rows}",
        f"phases: {phases}",
        *(f"{role}: loss {loss['before']:.3f} -> {loss['after']:.3f}" for role, loss in result["losses"].items()),
        "",
        _row(("category", "threshold", "exam", "test", "accuracy", "local", "errors", "promise")),
    ]
    exam = result["exam"]["after"]
    for name in sorted({*exam, *test["categories"]}):
        lines.append(_describe_category(name, result, exam.get(name, {}), test["categories"].get(name)))
    if test["all"]["rows"]:
        lines += ["", *_describe_whole(test)]
    return "\n".join(lines)


def _describe_category(
    name: str, result: Mapping[str, Any], exam: Mapping[str, Any], test: Mapping[str, Any] | None
) -> str:
    threshold = result["thresholds"].get(name)
    found = test or {"rows": 0, "accuracy": 0.0, "local_share": 0.0, "local_errors": 0, "local": 0}
    return _row(
        (
            name,
            "forward" if threshold is None else f"{threshold:.4f}",
            str(exam.get("rows", 0)),
            str(found["rows"]),
            f"{found['accuracy']:.3f}",
            f"{found['local_share']:.3f}",
            f"{found['local_errors']}/{found['local']}",
            result["policies"].get(name, "unknown to the router"),
        )
    )


def _describe_whole(test: Mapping[str, Any]) -> list[str]:
    whole = test["all"]
    low, high = whole["local_error_interval"]
    kept = "no routed category breaks the promise" if test["promise_kept"] else "a routed category breaks the promise"
    return [
        f"test: accuracy {whole['accuracy']:.4f} on {whole['rows']} rows; mean of categories "
        f"{test['macro_accuracy']:.4f}",
        f"answered locally {whole['local_share']:.4f}, bad among these {whole['local_error']:.4f} "
        f"({low:.4f} to {high:.4f}); {kept}",
    ]


def _row(cells: tuple[str, ...]) -> str:
    widths = (24, 9, 6, 6, 8, 7, 9, 0)
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
