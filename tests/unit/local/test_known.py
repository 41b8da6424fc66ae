"""Which variables somebody reads: those of every settings class, and every one that the sources and documents name."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from shammah_chassis.errors import InvalidInputError
from shammah_chassis.settings import ServiceSettings
from shammah_local.known import PARTS, read_names, refuse_unknown

ROOT = Path(__file__).parents[3]
NAME = re.compile(r"SHAMMAH_[A-Z0-9]+(?:_[A-Z0-9]+)*(?![A-Z0-9_{*])")
# Those of compilers; X and SERVICE_FIELD stand for any name in help and messages.
NO_VARIABLES = re.compile(r"SHAMMAH_(AMX|EMULATE|X|SERVICE_FIELD)")
NAMED_IN = ["README.md", "CONTRIBUTING.md", "Makefile", "services", "gateway", "deploy", "tests/bench", "tests/e2e"]
NAMED_IN += ["tests/support"]
TEXTS = {"", ".md", ".py", ".sh", ".toml", ".h", ".cc", ".cu", ".cuh"}


@pytest.mark.parametrize("part", PARTS)
def test_the_names_of_a_part_are_the_fields_of_its_settings(part: str) -> None:
    kind = getattr(importlib.import_module(f"shammah_{part}.config"), f"{part.capitalize()}Settings")
    assert issubclass(kind, ServiceSettings)
    assert read_names(part) == {f"{kind.model_config['env_prefix']}{name.upper()}" for name in kind.model_fields}


def read_named() -> dict[str, Path]:
    """Return every variable that sources and documents name, with one file that does."""
    places = [ROOT / name for name in NAMED_IN]
    files = [path for place in places for path in (place.rglob("*") if place.is_dir() else [place])]
    named = {}
    for path in files:
        if path.suffix in TEXTS and path.is_file():
            named |= dict.fromkeys(NAME.findall(path.read_text("utf-8", "replace")), path)
    return {name: path for name, path in named.items() if not NO_VARIABLES.fullmatch(name)}


def test_every_variable_that_sources_and_documents_name_is_known() -> None:
    named = read_named()
    assert {"SHAMMAH_BENCH_KEEP", "SHAMMAH_BASE_ENCODER", "SHAMMAH_GATEWAY_MCP_HOSTS", "SHAMMAH_URL"} <= set(named)
    for name, path in named.items():
        try:
            refuse_unknown([name])
        except InvalidInputError as error:
            pytest.fail(f"{path}: {error.message}")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("SHAMMAH_TRAINER_SFT_EPOCS", "SHAMMAH_TRAINER_SFT_EPOCHS"),
        ("SHAMMAH_GENERTOR_SLOTS", "SHAMMAH_GENERATOR_SLOTS"),
        ("SHAMMAH_TOKENS", "SHAMMAH_TOKEN"),
        ("shammah_token", "SHAMMAH_TOKEN"),
        ("shammah_gateway_teachr", "SHAMMAH_GATEWAY_TEACHER"),
        ("SHAMMAH_COLOUR", "settings begin with SHAMMAH_ROUTER_, "),
    ],
)
def test_a_variable_that_nobody_reads_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"unknown setting {name}\b.*{near}"):
        refuse_unknown(["PATH", "SHAMMAH_DATA_DIR", name])


def test_settings_are_known_in_any_case_of_letters() -> None:
    refuse_unknown(["shammah_trainer_sft_epochs", "Shammah_Gateway_HTTP_Port", "SHAMMA_X"])


@pytest.mark.parametrize("detach", [[], ["--detach"]])
@pytest.mark.parametrize(
    ("environment", "settings"),
    [({"SHAMMAH_GENERTOR_SLOTS": "2"}, []), ({}, ["--set", "SHAMMAH_GENERTOR_SLOTS=2"])],
)
def test_up_ends_by_it_before_anything_is_there(
    tmp_path: Path, environment: dict[str, str], settings: list[str], detach: list[str]
) -> None:
    data = tmp_path / "data"
    done = subprocess.run(
        [sys.executable, "-m", "shammah_local", "up", "--data-dir", str(data), *detach, *settings],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    told = "error: unknown setting SHAMMAH_GENERTOR_SLOTS (nearest: SHAMMAH_GENERATOR_SLOTS"
    assert done.stderr.startswith(told) and len(done.stderr.splitlines()) == 1
    assert not data.exists()


def test_names_are_found_without_importing_any_part() -> None:
    code = (
        "import sys; from shammah_local.known import refuse_unknown; refuse_unknown(['SHAMMAH_GATEWAY_TEACHER']); "
        "print([name for name in sys.modules if name.startswith(('torch', 'shammah_')) "
        "and name.split('.')[0] not in ('shammah_local', 'shammah_chassis')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
