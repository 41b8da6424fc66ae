"""Learning from files with tiny models: whole, in two halves, after a kill, and what can't be done."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.manifest import verify_folder
from shammah_trainer.offline.__main__ import main
from shammah_trainer.offline.rollouts_file import GRADED_NAME, ROLLOUTS_NAME, read_lines, write_lines
from support.studies import write_workload
from support.trainer import make_base_models, make_switch_rows

TEACH = ["--threads", "1", "--epochs", "8", "--hyper", "learning_rate=0.005", "batch_tokens=512"]
SERVE = ["--threads", "1", "--precision", "fp32", "--context", "128", "--base-rows", "10"]
PROMISE = ["--alpha", "0.2", "--delta", "0.2", "--validator-seconds", "3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base models, workload files, and a study that went through `run`."""
    folder = tmp_path_factory.mktemp("offline")
    make_base_models(folder / "base")
    write_workload(folder / "train.jsonl.gz", make_switch_rows(260))
    write_workload(folder / "exam.jsonl.gz", make_switch_rows(60, seed=1))
    unknown = make_switch_rows(20, seed=4, category="unknown")
    write_workload(folder / "test.jsonl.gz", [*make_switch_rows(80, seed=3), *unknown])
    files = ["--train", str(folder / "train.jsonl.gz"), "--exam", str(folder / "exam.jsonl.gz")]
    files += ["--test", str(folder / "test.jsonl.gz")]
    (folder / "files.json").write_text(json.dumps(files))
    base = ["--base", str(folder / "base")]
    run = ["run", "--out", str(folder / "whole"), *files, *base, *TEACH, *SERVE[2:], *PROMISE]
    assert main(run) == 0
    return folder


def read_result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text("utf-8"))


async def test_one_command_teaches_certifies_publishes_and_measures(place: Path) -> None:
    result = read_result(place / "whole")
    assert result["rows"]["exam"] >= 60
    assert result["losses"]["generator"]["after"] < result["losses"]["generator"]["before"]
    taught = result["test"]["categories"]["switch"]
    assert taught["accuracy"] > 0.9
    assert result["thresholds"]["switch"] is not None
    assert taught["local_share"] > 0.5
    assert taught["local_error_interval"][0] <= 0.2
    assert {"load", "train", "export", "judges", "certify", "test", "publish"} <= result["phase_seconds"].keys()
    # The release is one that a gateway could serve.
    store = DirectoryStore(place / "whole" / "store")
    release = await store.get_release(result["release"])
    for role in ("router", "generator", "validator"):
        verify_folder(place / "whole" / "store" / role / release.version_of(role), role=role)


def test_in_two_halves_the_result_is_the_same(place: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    files = json.loads((place / "files.json").read_text())
    assert main(["prepare", "--out", str(here), *files]) == 0
    # What the machine with the GPU gets: the study and the base generator; what comes back: no weights.
    there.mkdir()
    shutil.copy(here / "study.jsonl.gz", there)
    shutil.copytree(place / "base" / "generator", tmp_path / "carried" / "generator")
    assert main(["train", "--out", str(there), "--base", str(tmp_path / "carried"), *TEACH]) == 0
    # Two processes answer every other row each; their files joined are one.
    assert main(["rollouts", "--out", str(there), *SERVE, "--share", "0/2"]) == 0
    assert main(["rollouts", "--out", str(there), *SERVE, "--share", "1/2"]) == 0
    halves_of = [(there / f"{number}-{ROLLOUTS_NAME}").read_bytes() for number in (0, 1)]
    (there / ROLLOUTS_NAME).write_bytes(b"".join(halves_of))
    (here / "generator").mkdir()
    shutil.copy(there / "generator" / "manifest.json", here / "generator")
    shutil.copy(there / "train.json", here)
    shutil.copy(there / ROLLOUTS_NAME, here)
    base = ["--base", str(place / "base")]
    assert main(["grade", "--out", str(here), *base]) == 0
    (here / "ledger.sqlite").unlink()  # it need not travel: the study holds its rows
    assert main(["judge", "--out", str(here), *base, "--no-compute", *SERVE, *PROMISE]) == 0
    whole, halves = read_result(place / "whole"), read_result(here)
    assert not halves["published"]
    assert halves["exam"]["before"] == whole["exam"]["before"]
    assert halves["test"]["all"]["good"] == whole["test"]["all"]["good"]
    assert halves["losses"]["generator"] == whole["losses"]["generator"]
    with gzip.open(here / "scores.jsonl.gz", "rt") as lines:
        parts = [json.loads(line)["part"] for line in lines]
    assert {part: parts.count(part) for part in set(parts)} == {
        part: halves["rows"][part] for part in ("dev", "exam", "test")
    }


def test_missing_rollouts_are_an_error_where_they_may_not_be_computed(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "whole", tmp_path / "study")
    out = ["--out", str(tmp_path / "study")]
    assert main(["rollouts", *out, *SERVE, "--parts", "dev", "exam"]) == 0
    base = ["--base", str(place / "base")]
    assert main(["grade", *out, *base]) == 0
    lines = read_lines(tmp_path / "study" / GRADED_NAME)
    write_lines(tmp_path / "study" / GRADED_NAME, lines[:10])
    (tmp_path / "study" / "ledger.sqlite").unlink()
    assert main(["prepare", *out, *json.loads((place / "files.json").read_text())]) == 0
    assert main(["judge", *out, *base, "--no-compute", *SERVE, *PROMISE]) == 1
    assert "have no rollout" in capsys.readouterr().err


def test_what_is_missing_is_named(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "nothing")]
    assert main(["rollouts", *out]) == 1
    assert "there is no study" in capsys.readouterr().err
    assert main(["train", "--out", str(place / "whole"), "--base", str(place / "base"), "--hyper", "speed=9"]) == 1
    assert "hyper-parameter 'speed'" in capsys.readouterr().err
    assert main(["rollouts", "--out", str(place / "whole"), "--share", "2/2"]) == 1
    assert "share '2/2'" in capsys.readouterr().err
    (tmp_path / "nothing").mkdir()
    shutil.copy(place / "whole" / "study.jsonl.gz", tmp_path / "nothing")
    assert main(["rollouts", *out]) == 1
    assert "no taught generator" in capsys.readouterr().err
