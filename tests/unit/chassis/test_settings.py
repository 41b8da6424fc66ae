from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.settings import ServiceSettings, read_secret


class SomeSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="SHAMMAH_SOME_")


def test_settings_come_from_variables_with_the_prefix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHAMMAH_SOME_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SHAMMAH_SOME_PORT", "1234")
    monkeypatch.setenv("PORT", "99")
    settings = SomeSettings.load()
    assert (settings.port, settings.data_dir, settings.admin_port) == (1234, tmp_path, 0)
    assert settings.store_url == f"dir:{tmp_path}/store"
    assert settings.cache_dir == tmp_path / "cache"


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "70000"), ("PROT", "1"), ("STORE_URL", "s3://bucket"), ("QUEUE_LIMIT", "0")]
)
def test_a_wrong_or_misspelt_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.setenv("SHAMMAH_SOME_DATA_DIR", str(tmp_path))
    monkeypatch.setenv(f"SHAMMAH_SOME_{name}", value)
    with pytest.raises(InvalidInputError, match=f"SHAMMAH_SOME_{name}"):
        SomeSettings.load()


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(InvalidInputError, match="SHAMMAH_SOME_DATA_DIR"):
        SomeSettings.load()


def test_settings_never_change(tmp_path: Path) -> None:
    settings = SomeSettings(data_dir=tmp_path)
    with pytest.raises(ValidationError):
        settings.port = 1


def test_a_secret_is_read_without_its_line_end_and_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    assert read_secret(tmp_path / "token") == "abc"
    assert read_secret(None) is None
    with pytest.raises(InvalidInputError, match="nowhere"):
        read_secret(tmp_path / "nowhere")
