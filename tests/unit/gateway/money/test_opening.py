"""The settings make the ledger; a damaged file is named."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_gateway.config import GatewaySettings
from shammah_gateway.money.caps import Caps
from shammah_gateway.money.opening import open_ledger


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": 2}', b'{"charged": {"total": "-1"}}', b'{"spent": 3}']
)
def test_a_damaged_file_is_a_named_error_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    settings = GatewaySettings(data_dir=tmp_path)
    settings.own_dir.mkdir()
    path = settings.own_dir / "ledger.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"ledger\.json is damaged .* move it away"):
        open_ledger(settings)
    assert path.read_bytes() == content


def test_the_calls_of_an_earlier_gateway_still_count(tmp_path: Path) -> None:
    settings = GatewaySettings(data_dir=tmp_path, teacher_max_calls=5)
    settings.own_dir.mkdir()
    old = {"answer": {"calls": 4, "input_tokens": 40, "output_tokens": 8}}
    (settings.own_dir / "teacher_calls.json").write_text(json.dumps(old))
    ledger = open_ledger(settings)
    assert (ledger.calls, ledger.left("answer"), ledger.summary().unknown_calls) == (4, 1, 4)


def test_settings_make_the_caps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DATA_DIR": str(tmp_path), "USD_PER_DAY": "2.50", "AT_CAP": "degrade"}.items():
        monkeypatch.setenv(f"SHAMMAH_GATEWAY_{name}", value)
    ledger = open_ledger(GatewaySettings.load())
    assert ledger.caps == Caps(calls={"audit": 1000}, usd_per_day=Decimal("2.50"), at_cap="degrade")
    assert ledger.baseline == "claude-sonnet-5-5"
