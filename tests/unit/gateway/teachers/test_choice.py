from __future__ import annotations

import json
from pathlib import Path

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_gateway.config import GatewaySettings
from shammah_gateway.teachers.choice import BreakerBoard, open_port, open_upstreams
from shammah_gateway.teachers.faults import lose_connection

OPENAI = {"openai_base_url": "http://127.0.0.1:9/v1/", "openai_model": "open-1"}


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def write_key(folder: Path, text: str = "k1") -> Path:
    path = folder / f"{text or 'empty'}.key"
    path.write_text(f"{text}\n", "utf-8")
    return path


async def test_a_list_is_opened_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAMMAH_GATEWAY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SHAMMAH_GATEWAY_TEACHERS", "openai, anthropic,")
    monkeypatch.setenv("SHAMMAH_GATEWAY_OPENAI_BASE_URL", OPENAI["openai_base_url"])
    monkeypatch.setenv("SHAMMAH_GATEWAY_OPENAI_MODEL", "open-1")
    settings = GatewaySettings.load()
    port = await open_port(settings)
    assert port is not None
    assert [state.name for state in port.states()] == ["openai", "anthropic"]
    assert port.models == ("open-1", "claude-sonnet-5-5")
    await port.close()


async def test_one_teacher_works_as_before(tmp_path: Path) -> None:
    port = await open_port(GatewaySettings(data_dir=tmp_path, teacher="anthropic"))
    assert port is not None and port.name == "anthropic"
    assert await open_port(GatewaySettings(data_dir=tmp_path)) is None


async def test_a_recorded_teacher_may_stand_behind_another(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = {
        "id": "1",
        "messages": [{"role": "user", "content": "Capital?"}],
        "response": "Paris",
        "category": "capitals",
    }
    file.write_text(json.dumps(row) + "\n", "utf-8")
    settings = GatewaySettings(data_dir=tmp_path, teachers=("anthropic", "recorded"), recorded_files=(file,))
    port = await open_port(settings)
    assert port is not None and port.name == "anthropic,recorded"
    await port.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"teachers": ("anthropic", "anthropic")}, "twice"),
        ({"teachers": ("openai",)}, "openai_base_url"),
        ({"teachers": ("oracle",)}, "teachers"),
        ({"teachers": ("anthropic", "anthropic_backup")}, "anthropic_backup needs another"),
        (
            {"teachers": ("anthropic", "anthropic_backup"), "anthropic_backup_base_url": "https://two"},
            "needs anthropic_backup_key_file",
        ),
        ({"openai_base_url": "127.0.0.1:9"}, "openai_base_url"),
    ],
)
def test_what_can_not_work_is_refused_at_the_start(tmp_path: Path, given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GatewaySettings(data_dir=tmp_path, **given)  # type: ignore[arg-type]


def test_upstreams_are_the_servers_of_the_teachers_with_our_keys(tmp_path: Path) -> None:
    settings = GatewaySettings(
        data_dir=tmp_path,
        teachers=("anthropic", "anthropic_backup", "openai"),
        anthropic_key_file=write_key(tmp_path, "k1"),
        anthropic_backup_base_url="https://two/",
        anthropic_backup_key_file=write_key(tmp_path, "k2"),
        **OPENAI,  # type: ignore[arg-type]
    )
    upstreams = open_upstreams(settings)
    assert [(one.name, one.base_url) for one in upstreams.states()] == [
        ("anthropic", "https://api.anthropic.com"),
        ("anthropic_backup", "https://two"),
        ("openai", "http://127.0.0.1:9/v1"),
    ]
    assert upstreams.choose().upstream.headers == {"x-api-key": "k1"}
    assert upstreams.choose(tried=["anthropic"]).upstream.headers == {"x-api-key": "k2"}
    assert upstreams.choose("chat").upstream.headers == {}


def test_a_backup_that_is_only_another_model_takes_no_bytes(tmp_path: Path) -> None:
    settings = GatewaySettings(
        data_dir=tmp_path, teachers=("anthropic", "anthropic_backup"), anthropic_backup_model="claude-haiku-5-5"
    )
    assert [one.name for one in open_upstreams(settings).states()] == ["anthropic"]


@pytest.mark.parametrize(
    ("name", "headers"),
    [("ANTHROPIC_API_KEY", {"x-api-key": "e"}), ("ANTHROPIC_AUTH_TOKEN", {"authorization": "Bearer e"})],
)
def test_without_a_file_the_environments_key_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, headers: dict[str, str]
) -> None:
    monkeypatch.setenv(name, "e")
    settings = GatewaySettings(data_dir=tmp_path, teacher="anthropic")
    assert open_upstreams(settings).choose().upstream.headers == headers
    assert open_upstreams(settings, own_key=False).choose().upstream.headers == {}


def test_an_empty_key_file_is_refused_and_not_replaced_by_the_environments_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "e")
    settings = GatewaySettings(data_dir=tmp_path, teacher="anthropic", anthropic_key_file=write_key(tmp_path, ""))
    with pytest.raises(InvalidInputError, match="empty"):
        open_upstreams(settings)


async def test_bytes_and_sdk_share_a_breaker(tmp_path: Path) -> None:
    settings = GatewaySettings(data_dir=tmp_path, teacher="anthropic", breaker_failures=1)
    board = BreakerBoard(settings.breaker_limits)
    port = await open_port(settings, board)
    assert port is not None
    open_upstreams(settings, board).choose().fail(lose_connection("refused"))
    assert port.states()[0].state == "open"
    await port.close()
