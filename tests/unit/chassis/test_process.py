import os
import subprocess
import sys

import pytest


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
    ],
)
def test_a_service_that_can_not_start_says_why_in_one_line(service: str, settings: dict[str, str], word: str) -> None:
    done = start(service, **settings)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{service}: ")
    assert word in last
