"""What the command line prints is what was said."""

from __future__ import annotations

import pytest
from shammah_gateway.cli.console import out


@pytest.mark.parametrize("text", [":warning: dict[:key:] :+1:", "[red]plain[/red]"])
def test_an_answer_is_printed_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with out.capture() as captured:
        out.print(text, markup=False)
    assert captured.get() == f"{text}\n"
