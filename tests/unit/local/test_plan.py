"""The plan of one machine: what each service is told, and that the services know every variable."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.settings import ServiceSettings
from shammah_chassis.token_book import TokenBook
from shammah_chassis.tokens import TokenTable
from shammah_local.layout import Layout
from shammah_local.plan import PlanSettings, embedded_plan, parse_overrides
from shammah_local.tokens import ensure_tokens

PORTS = {
    "nats": {"port": 4001},
    "trainer": {"port": 4002, "admin_port": 5002},
    "router": {"port": 4003, "admin_port": 5003},
    "generator": {"port": 4004, "admin_port": 5004},
    "validator": {"port": 4005, "admin_port": 5005},
}


def plan(tmp_path: Path, **overrides: str):
    layout = Layout(tmp_path)
    layout.run.mkdir(exist_ok=True)
    parts = embedded_plan(PlanSettings(layout=layout, nats_token="t", overrides=overrides, cpus=6))
    return {part.name: part for part in parts}


def test_parts_start_and_stop_in_order(tmp_path: Path) -> None:
    parts = plan(tmp_path)
    assert [part.stage for part in parts.values()] == [0, 1, 1, 1, 1, 2]
    assert sorted(parts, key=lambda name: parts[name].stop_rank) == [
        "gateway", "router", "generator", "validator", "trainer", "nats"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["trainer", "router", "generator", "validator", "gateway"])
def test_each_service_understands_what_it_is_told(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = importlib.import_module(f"shammah_{name}.config")
    kinds = [
        kind
        for kind in vars(config).values()
        if isinstance(kind, type) and issubclass(kind, ServiceSettings) and kind.__module__ == config.__name__
    ]
    launch = plan(tmp_path)[name].launch(PORTS)
    for key, value in launch.environment.items():
        monkeypatch.setenv(key, value)
    settings = kinds[0].load()
    assert settings.nats_url == "nats://127.0.0.1:4001"
    assert settings.tokens_file == tmp_path / "tokens.json"
    assert settings.ready_file == tmp_path / "run" / f"{name}.ready.json"
    assert settings.store_url == f"dir:{tmp_path / 'store'}"
    assert launch.command[1:] == ["-m", f"shammah_{name}"]


def test_the_gateway_is_told_where_the_others_are(tmp_path: Path) -> None:
    environment = plan(tmp_path)["gateway"].launch(PORTS).environment
    assert environment["SHAMMAH_GATEWAY_ROUTER_TARGETS"] == "127.0.0.1:4003"
    assert environment["SHAMMAH_GATEWAY_TRAINER_TARGET"] == "127.0.0.1:4002"
    assert environment["SHAMMAH_GATEWAY_PORT"] == "0"


def test_the_gateway_prefers_its_well_known_http_port_and_keeps_the_one_that_it_had(tmp_path: Path) -> None:
    launch = plan(tmp_path)["gateway"].launch
    assert "SHAMMAH_GATEWAY_HTTP_PORT" not in launch(PORTS).environment
    again = launch({**PORTS, "gateway": {"port": 4005, "admin_port": 5005, "http_port": 6005}})
    assert again.environment["SHAMMAH_GATEWAY_HTTP_PORT"] == "6005"


def test_a_part_that_starts_again_is_told_its_own_ports(tmp_path: Path) -> None:
    environment = plan(tmp_path)["router"].launch(PORTS).environment
    assert environment["SHAMMAH_ROUTER_PORT"] == "4003"
    assert environment["SHAMMAH_ROUTER_ADMIN_PORT"] == "5003"


def test_generator_and_trainer_get_the_cpus_and_the_encoders_one_thread(tmp_path: Path) -> None:
    parts = plan(tmp_path)
    assert parts["generator"].launch(PORTS).environment["SHAMMAH_GENERATOR_THREADS"] == "6"
    assert parts["trainer"].launch(PORTS).environment["SHAMMAH_TRAINER_THREADS"] == "6"
    assert parts["router"].launch(PORTS).environment["SHAMMAH_ROUTER_SESSION_THREADS"] == "1"


def test_what_the_user_sets_wins(tmp_path: Path) -> None:
    environment = plan(tmp_path, SHAMMAH_GATEWAY_PORT="8123")["gateway"].launch(PORTS).environment
    assert environment["SHAMMAH_GATEWAY_PORT"] == "8123"


@pytest.mark.parametrize("text", ["PATH=/tmp", "SHAMMAH_X", "shammah_x=1", "=1"])
def test_a_setting_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="--set"):
        parse_overrides([text])


def test_a_setting_may_have_an_equals_sign_in_its_value() -> None:
    assert parse_overrides(["SHAMMAH_GATEWAY_TEACHER=a=b"]) == {"SHAMMAH_GATEWAY_TEACHER": "a=b"}


def test_tokens_are_kept_and_a_half_made_set_is_made_again(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    nats = ensure_tokens(layout)
    owner = layout.token_file("owner").read_text("utf-8")
    assert ensure_tokens(layout) == nats
    assert layout.token_file("owner").read_text("utf-8") == owner
    layout.token_file("owner").write_text("stale\n", "utf-8")
    ensure_tokens(layout)
    assert layout.token_file("owner").read_text("utf-8") not in ("stale\n", owner)


def test_a_new_start_keeps_what_was_granted_and_mends_what_is_its_own(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    ensure_tokens(layout)
    granted = TokenBook(layout.tokens_file).grant("claude", ["train"]).token
    layout.token_file("owner").unlink()
    ensure_tokens(layout)
    table = TokenTable.load(layout.tokens_file)
    owner = layout.token_file("owner").read_text().strip()
    assert table.authenticate(f"Bearer {owner}").name == "owner"
    assert table.authenticate(f"Bearer {granted}").scopes == {"train"}
    assert {entry.name for entry in table.entries} == {"owner", "internal", "claude"}


def test_a_start_makes_no_token_for_claude(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    ensure_tokens(layout)
    assert not layout.token_file("claude").exists()
    assert {entry.name for entry in TokenTable.load(layout.tokens_file).entries} == {"owner", "internal"}
