"""`shammah tokens` and `shammah audit`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from shammah_chassis.token_book import write_tokens
from shammah_chassis.tokens import TokenTable
from shammah_gateway.cli.main import app
from shammah_gateway.consent.audit import AuditLog
from typer.testing import CliRunner, Result


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_tokens(tmp_path / "tokens.json")
    return tmp_path


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--data-dir", str(data), *arguments])


def test_the_command_that_a_refusal_names_makes_claudes_token(data: Path) -> None:
    done = run(data, "tokens", "grant", "claude", "train")
    assert done.exit_code == 0, done.output
    token = done.stdout.strip()
    assert (data / "claude.token").read_text().strip() == token
    assert TokenTable.load(data / "tokens.json").authenticate(f"Bearer {token}").scopes == {"train"}
    again = run(data, "tokens", "grant", "claude", "ask,compare", "analyze")
    assert again.exit_code == 0 and again.stdout.strip() == ""
    listed = run(data, "tokens", "list", "--json")
    rows = {row["name"]: row["scopes"] for row in json.loads(listed.stdout)}
    assert rows["claude"] == ["analyze", "ask", "compare", "train"]
    assert token not in listed.output and token not in run(data, "tokens", "list").output


def test_a_token_is_made_printed_once_narrowed_and_removed(data: Path) -> None:
    token = run(data, "tokens", "add", "bob", "--scopes", "ask,analyze").stdout.strip()
    path = data / "tokens.json"
    assert TokenTable.load(path).authenticate(f"Bearer {token}").name == "bob"
    assert not (data / "bob.token").exists()
    assert run(data, "tokens", "revoke", "bob", "analyze").exit_code == 0
    assert TokenTable.load(path).authenticate(f"Bearer {token}").scopes == {"ask"}
    assert run(data, "tokens", "revoke", "bob", "--all").exit_code == 0
    assert TokenTable.load(path).authenticate(f"Bearer {token}").scopes == frozenset()
    assert run(data, "tokens", "remove", "bob").exit_code == 0
    assert "bob" not in run(data, "tokens", "list").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tokens", "add", "bob", "--scopes", "fly"), "unknown scope 'fly'; allowed: ask, compare"),
        (("tokens", "grant", "bob", "ask"), "shammah tokens add bob"),
        (("tokens", "revoke", "claude"), "name the scopes"),
        (("tokens", "remove", "owner"), "Shammah's own"),
        (("audit",), "no audit log"),
        (("audit", "--expect", "1:x"), "--verify"),
    ],
)
def test_what_is_wrong_is_said(data: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run(data, *arguments)
    assert done.exit_code == 1 and words in " ".join(done.output.split())


def test_the_log_is_shown_and_checked_and_a_change_is_found(data: Path) -> None:
    async def write() -> None:
        log = AuditLog(data / "gateway")
        for name in ("train", "compare_responses"):
            await log.note("tool", caller="claude", what={"name": name})
        await log.close()

    asyncio.run(write())
    (row,) = [json.loads(line) for line in run(data, "audit", "--tail", "1", "--json").stdout.splitlines()]
    assert (row["caller"], row["what"]) == ("claude", {"name": "compare_responses"})
    assert "train" in run(data, "audit").stdout
    told = json.loads(run(data, "audit", "--verify", "--json").stdout)
    assert told["whole"] and told["lines"] == 2
    assert run(data, "audit", "--verify", "--expect", told["head"]).exit_code == 0
    path = data / "gateway" / "audit.jsonl"
    path.write_text(path.read_text().replace("train", "nothing"))
    done = run(data, "audit", "--verify")
    assert done.exit_code == 1 and "NOT whole: line 1 was changed" in done.output
    assert run(data, "audit", "--verify", "--expect", "2:" + "0" * 64).exit_code == 1
