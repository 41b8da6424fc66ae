"""Grader `unit_tests`: the reply with the example's tests, run in the sandbox. It does not know how that is closed."""

from __future__ import annotations

import re
import textwrap

from shammah_chassis.examples import Example
from shammah_chassis.grading.fences import strip_fence
from shammah_chassis.grading.grade import Grade
from shammah_chassis.grading.sandbox import Limits, SandboxResult, run_program


def grade_unit_tests(response: str, example: Example, *, limits: Limits | None = None) -> Grade:
    """Good when the program of reply and tests runs to its end; blocks for up to 10 s.

    Ungraded when the example has no tests or the network could not be cut here.
    """
    if not example.tests.strip():
        return Grade(None, example.grader, "the example has no tests")
    result = run_program(build_programs(response, example), limits=limits)
    return Grade(_is_good(result), example.grader, _describe(result))


def build_programs(response: str, example: Example) -> list[str]:
    """Return variants of the program, the first that compiles counts.

    A reply that defines `entry_point` is the complete function, run after what the prompt has before that function
    (imports, helpers); else it is the body that continues the prompt, as it is or indented.
    """
    code = strip_fence(response)
    name = re.escape(example.entry_point)
    if not name:
        joined = [f"{example.prompt}\n{code}"] if example.prompt else [code]
    elif re.search(rf"^(?:async\s+def|def|class)\s+{name}\b|^{name}\s*=", code, re.MULTILINE):
        before = re.split(rf"^(?:async\s+)?def\s+{name}\b", example.prompt, flags=re.MULTILINE)
        joined = [f"{before[0]}\n{code}", code] if len(before) > 1 else [code]
    else:
        joined = [f"{example.prompt}\n{body}" for body in _indent(code, example.prompt)]
    return [f"{program}\n\n{example.tests}\n" for program in joined]


def _indent(code: str, prompt: str) -> list[str]:
    """Return `code` as it is, with its first line indented like the prompt's body, and all of it indented."""
    lines = [line for line in prompt.splitlines() if line.strip()]
    margin = re.match(r"\s*", lines[-1])[0] if lines else ""  # type: ignore[index]
    margin = margin or "    "
    return [code, margin + code.lstrip(), textwrap.indent(textwrap.dedent(code), margin)]


def _is_good(result: SandboxResult) -> bool | None:
    return None if result.outcome == "refused" else result.outcome == "passed"


def _describe(result: SandboxResult) -> str:
    last = result.output.strip().splitlines()[-1:] or ["no output"]
    if result.outcome == "refused":
        return f"not run, the network could not be cut: {last[0][:200]}"
    reason = "" if result.outcome == "passed" else f": {last[0][:200]}"
    return f"{result.outcome}{reason} (network cut by {result.network}; files: {result.files})"
