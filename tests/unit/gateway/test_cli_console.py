"""What the command line prints is what was said."""

from __future__ import annotations

from pathlib import Path

import pytest
from shammah.v1 import gateway_pb2
from shammah_gateway.cli import ask
from shammah_gateway.cli.console import out
from shammah_gateway.cli.main import app
from shammah_gateway.cli.paths import Connection
from typer.testing import CliRunner


@pytest.mark.parametrize("text", [":warning: dict[:key:] :+1:", "[red]plain[/red]"])
def test_an_answer_is_printed_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with out.capture() as captured:
        out.print(text, markup=False)
    assert captured.get() == f"{text}\n"


def test_an_asked_answer_goes_out_byte_for_byte(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "all:\n\tcc [bold]x[/bold] :warning:\r\n" + "long " * 100
    answer = gateway_pb2.AskResponse(text=text, route=gateway_pb2.ROUTE_TEACHER, category="[red]", query_id="Q:+1:")
    monkeypatch.setattr(ask, "run", lambda connection, work: answer)
    ask.ask_once(Connection("nowhere", ""), "?", ask.AskOptions(), as_json=False)
    told = capsys.readouterr()
    assert told.out == f"{text}\n"
    assert "category [red]" in told.err and "query Q:+1:" in told.err


@pytest.mark.parametrize("command", ["learn", "eval"])
def test_a_limit_below_nothing_is_refused(command: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("", "utf-8")
    done = CliRunner(env={"NO_COLOR": "1", "COLUMNS": "200"}).invoke(app, [command, "--limit", "-1", str(rows)])
    assert done.exit_code == 2
    assert "'--limit': Input should be greater than or equal to 0" in done.output
