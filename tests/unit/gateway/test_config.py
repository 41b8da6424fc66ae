from __future__ import annotations

from pathlib import Path

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_gateway.config import GatewaySettings
from shammah_gateway.teachers.choice import open_teacher
from support.gateway import make_ledger


def test_lists_are_read_from_commas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHAMMAH_GATEWAY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SHAMMAH_GATEWAY_ROUTER_TARGETS", "a:1, b:2,")
    monkeypatch.setenv("SHAMMAH_GATEWAY_RECORDED_FILES", "/x.jsonl,/y.jsonl.gz")
    settings = GatewaySettings.load()
    assert settings.targets == {"router": ("a:1", "b:2"), "generator": (), "validator": ()}
    assert settings.recorded_files == (Path("/x.jsonl"), Path("/y.jsonl.gz"))
    assert settings.secret_file == tmp_path / "gateway" / "coins.secret"
    assert (settings.audit_rate, settings.explore_rate, settings.role_timeout_seconds) == (0.02, 0.02, 2.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUDIT_RATE", "1.5"),
        ("TEACHER", "oracle"),
        ("NO_SUCH_THING", "1"),
        ("TEACHER_MAX_CALLS", "-1"),
        ("USD_PER_DAY", "-1"),
        ("AT_CAP", "ask"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str) -> None:
    monkeypatch.setenv("SHAMMAH_GATEWAY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv(f"SHAMMAH_GATEWAY_{name}", value)
    with pytest.raises(InvalidInputError, match=name):
        GatewaySettings.load()


async def test_a_recorded_teacher_needs_files_and_none_is_nobody(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        await open_teacher(GatewaySettings(data_dir=tmp_path, teacher="recorded"), make_ledger())
    assert await open_teacher(GatewaySettings(data_dir=tmp_path), make_ledger()) is None
