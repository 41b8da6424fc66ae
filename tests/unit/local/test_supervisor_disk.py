"""A full disk under the supervisor stops nothing that serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from shammah_chassis.errors import StorageFullError
from shammah_local import supervisor
from shammah_local.layout import Layout
from shammah_local.supervisor import Supervisor


def test_state_files_that_cannot_be_written_are_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    layout.run.mkdir(parents=True)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        raise OSError(28, "No space left on device")

    watched = Supervisor(layout, [], lock=None, say=say)
    write = supervisor.write_atomic

    def full(*_: object, **__: object) -> None:
        raise StorageFullError("no space left while writing status.json")

    monkeypatch.setattr(supervisor, "write_atomic", full)
    watched._report()
    watched._report()
    assert not layout.status_file.exists()
    assert len(said) == 1 and "no space left" in said[0]
    monkeypatch.setattr(supervisor, "write_atomic", write)
    watched._report()
    assert layout.status_file.exists()
