from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path

import psutil
import pytest
from shammah_chassis.grading import sandbox
from shammah_chassis.grading.sandbox import Limits, SandboxResult, run_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")


def run(source: str, **limits: float) -> SandboxResult:
    return run_program([source], limits=Limits(**{"seconds": 5, **limits}))  # type: ignore[arg-type]


def assert_stopped(result: SandboxResult, reason: str) -> None:
    assert result.outcome == "failed", result
    assert reason in result.output


def test_a_program_that_reaches_its_end_passes_and_the_cut_is_told() -> None:
    result = run("print('hello')")
    assert (result.outcome, result.output) == ("passed", "hello\n")
    assert "seccomp" in result.network
    assert result.files


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("assert 1 == 2", "AssertionError"),
        ("def broken(:", "SyntaxError"),
        ("x = '\\0", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os; os._exit(0)", ""),
        ("import numpy", "ModuleNotFoundError"),
        ("import shammah_chassis.jail.main.other", "ModuleNotFoundError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("input()", "EOFError"),
    ],
)
def test_a_program_that_stops_before_its_end_fails(source: str, reason: str) -> None:
    assert_stopped(run(source), reason)


def test_printing_what_looks_like_success_is_no_success() -> None:
    source = (
        "import os\nfor fd in range(1, 9):\n    try: os.write(fd, b'passed\\n')\n    except OSError: pass\nos._exit(0)"
    )
    assert run(source).outcome == "failed"


def test_the_first_variant_that_compiles_is_run() -> None:
    assert run_program(["def (", "print('second')", "print('third')"]).output == "second\n"
    assert "SyntaxError" in run_program(["def (", "return"]).output
    assert run_program([]).outcome == "failed"


def test_an_endless_loop_is_killed() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    assert run("while True: pass", seconds=1).outcome == "timeout"
    assert run("import time; time.sleep(1000)", seconds=1).outcome == "timeout"
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_a_program_that_ignores_signals_is_killed() -> None:
    source = "import signal\nfor s in (1, 2, 15, 24): signal.signal(s, signal.SIG_IGN)\nwhile True: pass"
    assert run(source, seconds=1).outcome == "timeout"


def test_a_program_that_closes_its_pipes_is_killed() -> None:
    result = run("import os\nos.closerange(0, 64)\nwhile True: pass", seconds=1)
    assert result.outcome in ("failed", "timeout")


@pytest.mark.parametrize(
    "source",
    [
        "x = bytearray(10 ** 10)",
        "x = []\nwhile True: x.append(bytearray(10 ** 7))",
        "import mmap; mmap.mmap(-1, 10 ** 10)",
    ],
)
def test_a_memory_bomb_ends(source: str) -> None:
    result = run(source, seconds=10)
    assert result.outcome == "failed"
    assert "Error" in result.output


def test_memory_outside_the_address_space_is_denied() -> None:
    assert_stopped(run("import os; os.memfd_create('x')"), "PermissionError")


@pytest.mark.parametrize(
    "source",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import multiprocessing as m\nm.Process(target=print).start()",
        "import os; os.setsid()",
        f"import os; os.kill({os.getppid()}, {signal.SIGTERM})",
        "import os, signal; os.kill(os.getppid(), signal.SIGTERM)",
    ],
)
def test_no_process_can_be_made_or_signalled(source: str) -> None:
    assert_stopped(run(source), "PermissionError")


def test_threads_work_but_not_without_bound() -> None:
    assert (
        run("import threading\nt = threading.Thread(target=print, args=('hi',))\nt.start(); t.join()").output == "hi\n"
    )
    bomb = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()"
    assert run(bomb, seconds=5).outcome in ("failed", "timeout")


@pytest.mark.parametrize(
    "connect",
    [
        "socket.create_connection(('127.0.0.1', PORT), 2)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
        "socket.socketpair()",
        "socket.socket(socket.AF_UNIX)",
    ],
)
def test_no_socket_can_be_opened(connect: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        # The listener can be reached from here, else the test would show nothing.
        socket.create_connection(("127.0.0.1", port), 2).close()
        listener.settimeout(5)
        listener.accept()[0].close()
        result = run("import socket\n" + connect.replace("PORT", str(port)))
        assert_stopped(result, "PermissionError")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_descriptor_of_the_parent_is_not_inherited() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        source = (
            "import os, stat\n"
            "for fd in range(64):\n"
            "    try: mode = os.fstat(fd).st_mode\n"
            "    except OSError: continue\n"
            "    assert not stat.S_ISSOCK(mode), fd"
        )
        assert run(source).outcome == "passed"


def test_big_files_and_many_files_cannot_be_written() -> None:
    assert run("open('big', 'wb').write(bytes(10 ** 9))").outcome == "failed"
    many = "for i in range(1000): open(f'f{i}', 'wb').write(bytes(10 ** 5))"
    assert run(many).outcome == "failed"


def test_the_files_of_the_user_are_hidden_and_safe(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("secret")
    secret.chmod(0o600)
    result = run(f"print(open({str(secret)!r}).read())")
    if "landlock" not in result.files and "own user id" not in result.files:
        pytest.skip("this kernel can hide no files from this user")
    assert_stopped(result, "PermissionError")
    assert "secret" not in result.output
    for act in ("open(p, 'w')", "os.unlink(p)", "os.chmod(p, 0o777)", "os.rename(p, p + 'x')", "os.truncate(p, 0)"):
        assert run(f"import os\np = {str(secret)!r}\n{act}").outcome == "failed"
    assert secret.read_text() == "secret"
    assert secret.stat().st_mode & 0o777 == 0o600


def test_it_starts_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAMMAH_SECRET_OF_THIS_TEST", "x")
    source = (
        "import os, sys\n"
        "assert not os.environ, os.environ\n"
        "assert sys.argv == ['program.py']\n"
        "assert not [p for p in sys.path if 'site-packages' in p or 'chassis' in p], sys.path"
    )
    assert run(source).outcome == "passed"


def test_output_is_capped_and_its_end_kept() -> None:
    result = run("print('x' * 10 ** 7)\nprint('the end')")
    assert result.outcome == "passed"
    assert len(result.output) <= 4_096
    assert result.output.endswith("the end\n")


def test_endless_output_does_not_fill_the_parent() -> None:
    assert run("while True: print('x' * 10 ** 4)", seconds=1).outcome == "timeout"


def test_a_large_program_can_be_sent() -> None:
    assert run("x = '" + "a" * 1_000_000 + "'\nprint(len(x))").output == "1000000\n"


def test_runs_of_several_threads_do_not_disturb_each_other() -> None:
    results: list[str] = []
    threads = [threading.Thread(target=lambda n=n: results.append(run(f"print({n})").output.strip())) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["0", "1", "2", "3", "4", "5"]


def test_nothing_runs_where_the_network_cannot_be_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose system calls are not known stands for a kernel without seccomp."""
    start = (
        f"import sys; sys.path.append({sandbox._ROOT!r}); "
        "import shammah_chassis.jail.seccomp as seccomp; seccomp._MACHINES.clear(); "
        "from shammah_chassis.jail.main import main; main()"
    )
    monkeypatch.setattr(sandbox, "_START", start)
    result = run("print('ran')")
    assert result.outcome == "refused"
    assert "no system-call filter" in result.output


def test_a_child_that_cannot_start_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_START", "raise RuntimeError('broken install')")
    result = run("print('ran')")
    assert result.outcome == "refused"
    assert "broken install" in result.output
