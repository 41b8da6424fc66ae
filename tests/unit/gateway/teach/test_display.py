from __future__ import annotations

import io
from decimal import Decimal

from rich.console import Console
from shammah_gateway.teach.display import Display
from shammah_gateway.teach.session import Outcome
from shammah_gateway.teach.settings import Goal, TeachSettings

ANALYSIS = {
    "local_success": 0.5,
    "tested": 50,
    "categories": [
        {
            "category": "colour",
            "tested": 50,
            "accuracy": 0.5,
            "local_good": 20,
            "local_bad": 0,
            "certified": True,
            "rows_missing": 0,
            "expected_gain": 0.1,
            "recommended_examples": 25,
        }
    ],
}


def show(terminal: bool = False) -> tuple[Display, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=140, color_system=None)
    return Display(console, TeachSettings(goal=Goal("local_share", 0.9))), out


def test_a_pipe_gets_plain_lines_with_stages_cost_and_goal() -> None:
    display, out = show()
    display.begin(1, "analyze_model", {"test_count": 50})
    display.progress(0.5, "25 of 50 tested")
    display.progress(0.6, "25 of 50 tested")
    display.end(Outcome(1, ANALYSIS), "analyze_model", cost=Decimal("0.12"), replayed=False)
    text = out.getvalue()
    assert "\x1b" not in text
    assert text.count("25 of 50 tested") == 1
    assert "step 1: analyze_model(test_count=50)" in text
    assert "accuracy 50 % of 50 rows (colour 50 %)  [0.12 USD]" in text
    assert "certified local share: 40 % at first, 40 % now, the goal is 90 %" in text


def test_replayed_steps_are_one_line() -> None:
    display, out = show()
    for step in (1, 2, 3):
        display.end(Outcome(step, ANALYSIS), "analyze_model", cost=Decimal(0), replayed=True)
    display.begin(4, "train", {})
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert "3 steps are in the journal" in lines[0]


def test_text_of_a_tool_is_never_markup() -> None:
    display, out = show()
    display.begin(1, "generate_training_data", {"focus": "[red]x[/nothing]"})
    display.end(Outcome(1, {}, "invalid_input", "[/bold] is not allowed"), "train", cost=Decimal(0), replayed=False)
    assert "[red]x[/nothing]" in out.getvalue()
    assert "invalid_input: [/bold] is not allowed" in out.getvalue()


def test_a_terminal_shows_what_goes_on_and_stops_showing_it() -> None:
    display, out = show(terminal=True)
    display.begin(1, "train", {})
    display.progress(0.3, "fine-tuning")
    display.stop()
    display.stop()
    assert "train" in out.getvalue()
