"""The settings of the HTTP doors as the gateway reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_gateway.config import GatewaySettings


def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **values: str) -> GatewaySettings:
    for name, value in {"data_dir": str(tmp_path), **values}.items():
        monkeypatch.setenv(f"SHAMMAH_GATEWAY_{name.upper()}", value)
    return GatewaySettings.load()


def test_http_is_on_at_its_well_known_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load(monkeypatch, tmp_path)
    assert (settings.http_port, settings.http_address, settings.http_routing) == (8080, "127.0.0.1", True)
    assert "http_port" not in settings.model_fields_set


@pytest.mark.parametrize("off", ["", "-1"])
def test_http_can_be_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, off: str) -> None:
    assert load(monkeypatch, tmp_path, http_port=off).http_port == -1


def test_ids_that_mean_auto_are_a_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load(monkeypatch, tmp_path, http_auto_models="claude-sonnet-5-5, gpt-9,")
    assert settings.http_auto_models == {"claude-sonnet-5-5", "gpt-9"}


@pytest.mark.parametrize("values", [{"http_port": "70000"}, {"http_port": "-2"}, {"http_max_body_bytes": "0"}])
def test_what_can_not_be_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, values: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError, match="HTTP_"):
        load(monkeypatch, tmp_path, **values)


def test_the_clients_own_key_is_for_loopback_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load(monkeypatch, tmp_path, http_credentials="client").http_credentials == "client"
    assert load(monkeypatch, tmp_path, http_credentials="client", host="0.0.0.0", http_host="localhost")
    with pytest.raises(InvalidInputError, match="loopback"):
        load(monkeypatch, tmp_path, http_credentials="client", host="0.0.0.0", http_host="")
