from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from shammah_chassis.ulid import new_ulid
from shammah_gateway.job_record import JobRecord
from shammah_gateway.job_store import ASIDE, JobStore


def make_record(**changes: object) -> JobRecord:
    return JobRecord(**{"id": new_ulid(), "kind": "train", "owner": "owner", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("durable", [True, False])
def test_a_record_is_read_back_as_it_was(tmp_path: Path, durable: bool) -> None:
    record = make_record(saved={"round": "T1"}, arguments={"wait": True}, scopes=["ask"], request_id="é".upper())
    store = JobStore(tmp_path)
    store.write(record, durable=durable)
    store.write(record, durable=durable)
    assert JobStore(tmp_path).load() == [record]
    assert os.listdir(tmp_path) == [f"{record.id}.json"]
    assert (tmp_path / f"{record.id}.json").stat().st_mode & 0o777 == 0o600
    store.remove(record.id)
    assert store.load() == []


def test_a_record_of_before_is_still_read(tmp_path: Path) -> None:
    record = make_record(state="done", result={"queued": 3})
    values = asdict(record)
    for name in ("scopes", "request_id", "digest", "arguments", "saved", "accepted", "cancelling", "resumes"):
        del values[name]
    (tmp_path / f"{record.id}.json").write_text(json.dumps(values))
    assert JobStore(tmp_path).load() == [record]


def test_files_that_are_no_records_are_set_aside_and_the_others_are_read(tmp_path: Path) -> None:
    good = make_record()
    JobStore(tmp_path).write(good, durable=False)
    bad = make_record()
    wrong = {
        "cut": json.dumps(asdict(bad))[:40],
        "empty": "",
        "list": "[]",
        "bytes": "\udcff\udcfe",
        "type": json.dumps({**asdict(bad), "progress": "much"}),
        "state": json.dumps({**asdict(bad), "state": "asleep"}),
        "name": json.dumps(asdict(bad)),
        "id": json.dumps({**asdict(bad), "id": "../../x"}),
    }
    for name, text in wrong.items():
        (tmp_path / f"{name}.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert JobStore(tmp_path).load() == [good]
    assert sorted(os.listdir(tmp_path / ASIDE)) == sorted(f"{name}.json" for name in wrong)
    # The next start does not meet them again.
    assert JobStore(tmp_path).load() == [good]


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    record = make_record()
    (tmp_path / f".aside-{record.id}").write_text("{")
    os.utime(tmp_path / f".aside-{record.id}", (1.0, 1.0))
    assert JobStore(tmp_path).load() == []
    assert os.listdir(tmp_path) == []


def test_a_record_that_cannot_be_removed_fails_nobody(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job = new_ulid()
    (tmp_path / f"{job}.json").mkdir()
    store.remove(job)
    assert (tmp_path / f"{job}.json").is_dir()
