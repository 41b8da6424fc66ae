import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from shammah_chassis.token_book import write_tokens


def start(service: str, **settings: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SHAMMAH_")}
    changes = {f"SHAMMAH_{service.upper()}_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", f"shammah_{service}"]
    return subprocess.run(command, env=plain | changes, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("service", "settings", "word"),
    [
        ("generator", {}, "SHAMMAH_GENERATOR_DATA_DIR"),
        ("validator", {"DATA_DIR": "/tmp", "PROT": "1"}, "SHAMMAH_VALIDATOR_PROT"),
        ("router", {"DATA_DIR": "/tmp"}, "tokens_file"),
        ("gateway", {"DATA_DIR": "/tmp", "TEACHR": "none"}, "SHAMMAH_GATEWAY_TEACHR"),
        ("trainer", {"DATA_DIR": "/tmp", "SFT_EPOCS": "3"}, "SHAMMAH_TRAINER_SFT_EPOCS"),
        ("trainer", {"DATA_DIR": "/tmp", "REFUSED_LICENCES": "gpl"}, "refused_licences"),
        (
            "trainer",
            {"DATA_DIR": "/tmp", "SFT_LORA_RANK": "8", "SFT_UPPER_LAYERS": "2"},
            "SHAMMAH_TRAINER_...: SFT_LORA_RANK and SFT_UPPER_LAYERS are both set; allowed: one of them",
        ),
    ],
)
def test_a_service_with_wrong_settings_says_why_in_one_line(service: str, settings: dict[str, str], word: str) -> None:
    done = start(service, **settings)
    # So that a supervisor does not start it again by the same settings.
    assert done.returncode == 78
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{service}: ")
    assert word in last


def test_a_service_that_can_not_start_for_another_reason_may_be_started_again(tmp_path: Path) -> None:
    write_tokens(tmp_path / "tokens.json")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = start("router", DATA_DIR=str(tmp_path), TOKENS_FILE=str(tmp_path / "tokens.json"), ADMIN_PORT=port)
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("router: ")
