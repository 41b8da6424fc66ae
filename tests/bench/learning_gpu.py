"""The part of the learning study that needs a GPU: for each arm, teach the base generator and answer its rows.

Needs the bundle of `learning.py pack` and a base generator, no data. For each arm, `OUT/ARM.tar` holds what
`learning.py finish` needs on the other machine: manifest, record of the training, rollouts; the weights stay. A second
call with the same work folder goes on where the first was stopped. `--dry` runs it on a CPU with tiny limits.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from learning_arms import ARMS, ROOT, Arm, find_bundle

_PARTS = ("services/trainer", "services/generator", "services/chassis", "protos/gen")
_BACK = ("generator/manifest.json", "train.json", "rollouts.jsonl.gz")


def main() -> None:
    """Run the arms one after another; those that fail are named and the others go on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="what is to come back")
    parser.add_argument("--work", type=Path, default=Path("/tmp/learning"), help="weights and half-made files")
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--base", type=Path, default=None, help="folder with the base generator in generator/")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--hyper", nargs="*", default=[], help="NAME=VALUE for every arm, before the arm's own")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(options.bundle or find_bundle(dry=options.dry)) as bundle:
        bundle.extractall(options.work, filter="data")
    started = time.monotonic()
    failed = [name for name in options.arms if not run_arm(ARMS[name], options)]
    print(f"all arms: {time.monotonic() - started:.1f} s; failed: {', '.join(failed) or 'none'}", flush=True)
    sys.exit(bool(failed))


def run_arm(arm: Arm, options: argparse.Namespace) -> bool:
    """Teach and answer; True when both were done. Each in a process of its own, so that the next has the whole GPU."""
    folder = options.work / arm.name
    if not (folder / "study.jsonl.gz").is_file():
        print(f"{arm.name}: not in the bundle", flush=True)
        return False
    teach = ["--hyper", *options.hyper, *arm.hyper]
    serve = ["--precision", "fp16"]
    if options.base is not None:
        teach = ["--base", str(options.base), *teach]
    if options.dry:
        teach += ["epochs=1", "max_rows_per_batch=8", "batch_tokens=1024", "max_tokens=256", "upper_layers=2"]
        serve = ["--precision", "int8", "--max-tokens", "4", "--base-rows", "1"]
    if not arm.judged:
        serve += ["--parts", "test"]
    for command, rest in (("train", teach), ("rollouts", serve)):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "shammah_trainer.offline", command, "--out", str(folder), *rest],
            env=os.environ | {"PYTHONPATH": _python_path(), "PYTHONUNBUFFERED": "1"},
            check=False,
        )
        print(f"{arm.name}: {command} {time.monotonic() - started:.1f} s, exit code {done.returncode}", flush=True)
        # What there is comes back also after a failure: it is half of the work.
        pack_back(folder, options.out / f"{arm.name}.tar")
        if done.returncode:
            return False
    return True


def pack_back(folder: Path, target: Path) -> None:
    """Write what the other machine needs of an arm."""
    with tarfile.open(target, "w") as archive:
        for name in _BACK:
            if (folder / name).is_file():
                archive.add(folder / name, name)


def _python_path() -> str:
    own = [str(ROOT / part) for part in _PARTS]
    return os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH", "")])])


if __name__ == "__main__":
    main()
