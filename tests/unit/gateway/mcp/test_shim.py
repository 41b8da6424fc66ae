"""`shammah mcp` without a gateway: what it says, what it imports, what it writes, and how it finds its way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shammah_chassis.errors import UnauthenticatedError, UnavailableError
from shammah_gateway.cli.entry import read_mcp
from shammah_gateway.mcp.endpoint import find_endpoint
from shammah_gateway.mcp.shim import with_request_id
from shammah_gateway.mcp.words import REQUEST_ID_META

HEAVY = ("torch", "anthropic", "onnxruntime", "transformers", "mcp", "openai", "numpy", "grpc")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHAMMAH_URL", "SHAMMAH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def run_shim(folder: Path, *lines: str, **env: str) -> tuple[list[dict[str, Any]], str]:
    """Run `shammah mcp` on lines; return the messages it wrote and its standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "shammah_gateway.cli", "--data-dir", str(folder), "mcp"],
        input="\n".join(lines).encode(),
        capture_output=True,
        check=True,
        timeout=60,
        env={**os.environ, **env},
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


def call(number: int, method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def test_without_a_gateway_it_says_so_in_the_protocol_and_once_on_standard_error(tmp_path: Path) -> None:
    answers, errors = run_shim(
        tmp_path,
        call(1, "initialize", protocolVersion="2025-11-25"),
        call(2, "tools/call", name="train", arguments={}),
        SHAMMAH_TOKEN="x",
    )
    by_id = {answer["id"]: answer for answer in answers}
    assert "no Shammah runs" in by_id[1]["error"]["message"] and " up" in by_id[1]["error"]["message"]
    assert by_id[2]["result"]["isError"] and "no Shammah runs" in by_id[2]["result"]["content"][0]["text"]
    assert errors.count("no Shammah runs") == 1


def test_without_a_token_it_says_how_to_grant_one(tmp_path: Path) -> None:
    answers, _ = run_shim(tmp_path, call(1, "tools/call", name="train"), SHAMMAH_URL="http://127.0.0.1:9")
    assert "shammah tokens grant claude" in answers[0]["result"]["content"][0]["text"]


def test_where_nobody_listens_it_says_so_at_once(tmp_path: Path) -> None:
    place = {"SHAMMAH_URL": "http://127.0.0.1:9", "SHAMMAH_TOKEN": "x"}
    answers, _ = run_shim(tmp_path, call(1, "tools/list"), **place)
    assert "does not answer" in answers[0]["error"]["message"]


def test_lines_that_are_no_messages_are_answered_and_the_rest_goes_on(tmp_path: Path) -> None:
    answers, _ = run_shim(tmp_path, "{", "[]", "", "5", '{"jsonrpc": "2.0", "method": "x"}', call(7, "tools/list"))
    assert [answer["error"]["code"] for answer in answers] == [-32700, -32600, -32600, -32000]


def test_it_imports_no_model_no_sdk_and_no_grpc(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['shammah', '--data-dir', sys.argv[1], 'mcp']\n"
        "from shammah_gateway.cli.entry import main\nmain()\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        input=call(1, "tools/list").encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stderr.decode().splitlines()[-1] == "[]" and json.loads(done.stdout)["id"] == 1


def test_the_gateway_imports_no_mcp_sdk_before_the_first_request() -> None:
    code = "import sys, shammah_gateway.http.opening; print('mcp' in sys.modules, 'mcp_types' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().split() == ["False", "False"]


def test_the_place_is_what_up_wrote_and_the_token_that_of_claude(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnavailableError, match="no Shammah runs"):
        find_endpoint(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/up.json").write_text('{"gateway": "x:1", "http": ""}')
    with pytest.raises(UnavailableError, match="without HTTP"):
        find_endpoint(tmp_path)
    (tmp_path / "run/up.json").write_text('{"gateway": "x:1", "http": "http://127.0.0.1:8080"}')
    with pytest.raises(UnauthenticatedError, match="tokens grant claude"):
        find_endpoint(tmp_path)
    (tmp_path / "claude.token").write_text("of-claude\n")
    found = find_endpoint(tmp_path)
    assert (found.url, found.token) == ("http://127.0.0.1:8080/mcp", "of-claude")
    monkeypatch.setenv("SHAMMAH_URL", "https://far/mcp/")
    monkeypatch.setenv("SHAMMAH_TOKEN", "own")
    found = find_endpoint(tmp_path)
    assert (found.url, found.token) == ("https://far/mcp", "own")


def test_a_call_gets_a_request_id_unless_it_has_one() -> None:
    first = with_request_id(
        {"id": 1, "method": "tools/call", "params": {"name": "train", "_meta": {"progressToken": 5}}}
    )
    meta = first["params"]["_meta"]
    assert meta["progressToken"] == 5 and meta[REQUEST_ID_META].startswith("stdio-")
    assert with_request_id(first) is first
    other = {"id": 1, "method": "tools/list", "params": {}}
    assert with_request_id(other) is other


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("mcp", ("", "")),
        ("--data-dir /x mcp", ("/x", "")),
        ("--data-dir /x mcp --url http://y", ("/x", "http://y")),
        ("mcp --help", None),
        ("mcp --url", None),
        ("--data-dir", None),
        ("status", None),
        ("", None),
    ],
)
def test_only_a_plain_mcp_command_goes_the_short_way(words: str, found: tuple[str, str] | None) -> None:
    read = read_mcp(words.split())
    assert (None if read is None else (read["--data-dir"], read["--url"])) == found
