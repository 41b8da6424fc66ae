"""Nobody else reads a data folder: it holds conversations."""

from __future__ import annotations

from pathlib import Path

from shammah_local.commands import keep_private


def test_a_data_folder_is_for_its_owner_alone_whether_it_was_there_or_not(tmp_path: Path) -> None:
    fresh, old = tmp_path / "a" / "data", tmp_path / "old"
    old.mkdir(mode=0o755)
    old.chmod(0o755)
    for folder in (fresh, old, old):
        keep_private(folder)
        assert folder.stat().st_mode & 0o777 == 0o700
