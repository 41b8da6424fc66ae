"""Cuts the arms of the learning study on this machine and packs what the machine with the GPU needs.

It writes the published test list, one ledger and study an arm below `.bench/learning`, and `.bench/learning.tar`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

from learning_arms import LISTED_ROWS, Arm, find_bundle, find_work
from shammah_trainer.offline.__main__ import main as offline
from system import DATA, RESULTS

TEST_IDS = RESULTS / "learning_test_ids.json"
_DRY_ROWS = 24


def list_families(kind: str) -> list[str]:
    """Return the families that have a `train` or `test` file."""
    found = sorted(path.name.removesuffix(f".{kind}.jsonl.gz") for path in DATA.glob(f"*.{kind}.jsonl.gz"))
    if not found:
        raise SystemExit(f"this benchmark needs the workload files of {DATA}")
    return found


def write_test_list(folder: Path) -> dict[str, list[str]]:
    """Write the listed rows of each test file into `folder`; return their ids by family.

    At most 250 of a family: those whose ids have the lowest SHA-256, so the choice is nobody's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed: dict[str, list[str]] = {}
    for family in list_families("test"):
        with gzip.open(DATA / f"{family}.test.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = {json.loads(line)["id"]: line for line in lines}
        chosen = sorted(rows, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:LISTED_ROWS]
        listed[family] = sorted(chosen)
        text = "".join(rows[name] for name in rows if name in set(chosen))
        (folder / f"{family}.test.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    return listed


def pack(arms: Sequence[Arm], *, dry: bool) -> None:
    """Cut every arm that is not there yet and write the bundle."""
    work, target = find_work(dry=dry), find_bundle(dry=dry)
    listed = write_test_list(work / "test_list")
    if not dry:
        TEST_IDS.write_text(json.dumps(listed, indent=1) + "\n", "utf-8")
    for arm in arms:
        folder = work / arm.name
        if not (folder / "study.jsonl.gz").is_file():
            started = time.monotonic()
            if offline(_arguments(arm, folder, dry=dry)):
                raise SystemExit(f"arm {arm.name} could not be cut")
            print(f"{arm.name}: cut in {time.monotonic() - started:.1f} s", flush=True)
    with tarfile.open(target, "w") as bundle:
        for arm in arms:
            bundle.add(work / arm.name / "study.jsonl.gz", f"{arm.name}/study.jsonl.gz")
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


def _arguments(arm: Arm, folder: Path, *, dry: bool) -> list[str]:
    families = [name for name in list_families("train") if not arm.families or name in arm.families]
    asked = [name for name in list_families("test") if not arm.families or name in arm.families]
    tests = DATA if arm.whole_test else find_work(dry=dry) / "test_list"
    # Arms of the same families share what takes long.
    group = "-".join([*arm.families, "without", *arm.leave_out]) if arm.families or arm.leave_out else "all"
    group += f"-exam-{arm.exam_rows}" if arm.exam_rows else ""
    key = hashlib.sha256(group.encode()).hexdigest()[:12]
    options = ["--ingested", str(find_work(dry=dry) / "ledgers" / f"{key}.sqlite")]
    options += ["--exam-rows", str(arm.exam_rows), "--judged-rows", str(arm.judged_rows)]
    options += ["--train-rows", str(arm.train_rows), "--seed", str(arm.seed)]
    if dry:
        options += ["--limit-per-family", str(_DRY_ROWS), "--test-rows", "2"]
    if not arm.judged:
        options.append("--teach-all")
    return [
        *("prepare", "--out", str(folder), *options),
        *("--leave-out", *arm.leave_out),
        *("--train", *(str(DATA / f"{name}.train.jsonl.gz") for name in families)),
        *("--test", *(str(tests / f"{name}.test.jsonl.gz") for name in asked)),
    ]
