"""Where a client finds its gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shammah_client.connection import Connection, find_connection
from shammah_client.errors import UnavailableError


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHAMMAH_GATEWAY", "SHAMMAH_TOKEN", "SHAMMAH_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/up.json").write_text(json.dumps({"gateway": "127.0.0.1:7", "pid": 1}))
    (tmp_path / "owner.token").write_text("from-folder\n")
    return tmp_path


def test_arguments_come_before_variables_before_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAMMAH_DATA_DIR", str(folder))
    assert find_connection() == Connection("127.0.0.1:7", "from-folder")
    monkeypatch.setenv("SHAMMAH_GATEWAY", "gate:1")
    assert find_connection() == Connection("gate:1", "from-folder")
    monkeypatch.setenv("SHAMMAH_TOKEN", "from-variable")
    assert find_connection() == Connection("gate:1", "from-variable")
    assert find_connection(address="other:2", token="given") == Connection("other:2", "given")
    # A folder that is named is meant.
    assert find_connection(data_dir=folder) == Connection("127.0.0.1:7", "from-folder")


def test_the_command_line_reads_the_same_files(folder: Path) -> None:
    from shammah_gateway.cli.paths import find_connection as find_by_command_line

    theirs = find_by_command_line(folder)
    assert find_connection(data_dir=folder) == Connection(theirs.target, theirs.token)


@pytest.mark.parametrize("broken", ["run/up.json", "owner.token"])
def test_a_folder_where_nothing_runs_is_named(folder: Path, broken: str) -> None:
    (folder / broken).unlink()
    with pytest.raises(UnavailableError, match=str(folder)):
        find_connection(data_dir=folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "3"])
def test_a_broken_file_is_named(folder: Path, text: str) -> None:
    (folder / "run/up.json").write_text(text)
    with pytest.raises(UnavailableError, match="shammah --data-dir"):
        find_connection(data_dir=folder)


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Connection("a:1", "secret"))
