"""A full disk under the supervisor stops nothing that serves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shammah_chassis.errors import StorageFullError
from shammah_local import supervisor
from shammah_local.layout import Layout
from shammah_local.plan import Launch, Part
from shammah_local.status import format_status
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


def test_what_keeps_a_part_from_starting_is_told_each_time_it_comes_back(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.run.mkdir(parents=True)
    said: list[str] = []
    part = Part(name="nats", stage=0, stop_rank=0, launch=lambda _: Launch(["true"]), read_ports=lambda _: None)
    watched = Supervisor(layout, [part], lock=None, say=said.append)
    for problem in ("", "no room", "no room", "", "no room"):
        watched._parts[0].problem = problem
        watched._report()
    assert [line.partition("] ")[2] for line in said if "no room" in line] == ["nats: no room"] * 2
    assert not [line for line in said if line.strip().endswith(":")]
    state = json.loads(layout.status_file.read_text("utf-8"))
    assert "no room" in format_status(state)
