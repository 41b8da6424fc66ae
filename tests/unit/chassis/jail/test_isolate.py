"""The weaker ways of being cut off: what is left where the kernel gives no namespaces and no Landlock."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
from shammah_chassis.grading import sandbox
from shammah_chassis.grading.sandbox import Limits, SandboxResult, run_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")

NO_NAMESPACES = "isolate._unshare = lambda libc: ''"
NO_LANDLOCK = """
def refuse(libc, *, writable):
    raise OSError('no landlock')
isolate.restrict_files = refuse
"""


@pytest.fixture
def run_without(monkeypatch: pytest.MonkeyPatch):
    def run(removed: str, source: str) -> SandboxResult:
        start = "\n".join(
            [
                f"import sys; sys.path.append({sandbox._ROOT!r})",
                "import shammah_chassis.jail.isolate as isolate",
                removed,
                "from shammah_chassis.jail.main import main; main()",
            ]
        )
        monkeypatch.setattr(sandbox, "_START", start)
        return run_program([source], limits=Limits(seconds=5))

    return run


def test_without_namespaces_the_filter_alone_cuts_the_network(run_without) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        source = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        result = run_without(NO_NAMESPACES, source)
        assert (result.outcome, result.network) == ("failed", "seccomp")
        assert "PermissionError" in result.output
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("removed", [NO_NAMESPACES, NO_LANDLOCK, NO_NAMESPACES + NO_LANDLOCK])
def test_without_a_disk_of_its_own_nothing_can_be_changed(run_without, removed: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("kept")
    for act in (
        "open('file', 'w')",
        "open(mine, 'w')",
        "open(mine, 'a')",
        "open(mine, 'r+')",
        "os.truncate(mine, 0)",
        "os.unlink(mine)",
        "os.rename(mine, mine + 'x')",
        "os.mkdir(mine + 'd')",
        "os.symlink(mine, mine + 'l')",
        "os.link(mine, mine + 'l')",
        "os.chmod(mine, 0)",
    ):
        result = run_without(removed, f"import os\nmine = {str(mine)!r}\n{act}")
        assert result.outcome == "failed", act
        assert "PermissionError" in result.output
        assert "no writing" in result.files
    assert mine.read_text() == "kept"
    assert run_without(removed, "import json\nassert json.loads('1') == 1").outcome == "passed"


def test_without_landlock_the_report_does_not_claim_it(run_without) -> None:
    result = run_without(NO_LANDLOCK, "pass")
    assert result.outcome == "passed"
    assert "landlock" not in result.files


@pytest.mark.parametrize("removed", ["", NO_NAMESPACES, NO_NAMESPACES + NO_LANDLOCK])
def test_no_process_can_be_made_in_any_mode(run_without, removed: str) -> None:
    result = run_without(removed, "import os; os.fork()")
    assert result.outcome == "failed"
    assert "PermissionError" in result.output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lose")
def test_root_keeps_no_capability(run_without, tmp_path: Path) -> None:
    source = "print([l for l in open('/proc/self/status') if l.startswith('CapEff')][0])"
    result = run_without(NO_LANDLOCK, source)
    assert result.output.split() == ["CapEff:", "0000000000000000"]
