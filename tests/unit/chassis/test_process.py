import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("service", ["router", "validator", "generator"])
def test_a_service_that_can_not_start_says_why_in_one_line(service: str, tmp_path: Path) -> None:
    prefix = f"SHAMMAH_{service.upper()}_"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SHAMMAH_")}
    for changes, word in (
        ({}, f"{prefix}DATA_DIR"),
        ({f"{prefix}DATA_DIR": str(tmp_path)}, "tokens_file"),
        ({f"{prefix}DATA_DIR": str(tmp_path), f"{prefix}PROT": "1"}, f"{prefix}PROT"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", f"shammah_{service}"],
            env=plain | changes,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f"{service}: ")
        assert word in last
        assert "Traceback" not in done.stderr
