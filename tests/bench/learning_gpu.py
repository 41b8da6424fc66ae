"""The part of the learning study that needs a GPU: for each arm, teach the base generator, answer its rows, judge.

Needs the bundle of `learning.py pack` and a base generator, no data; for `--judge` the base encoder too. For each arm,
`OUT/ARM.tar` holds what `learning.py finish` needs on the other machine: manifest, record of the training, rollouts
(with `--judge` their grades, the scores and the result); the weights stay. A second call with the same work folder goes
on where the first was stopped. Each of `--gpus` works on an arm of its own; `--shares` processes answer its rows beside
each other, as the launches of one process don't fill a GPU. `--dry` runs it on a CPU with tiny limits.
"""

from __future__ import annotations

import argparse
import os
import queue
import shlex
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from learning_arms import ARMS, ROOT, Arm, find_bundle

_PARTS = ("services/trainer", "services/generator", "services/chassis", "protos/gen")
_BACK = ("generator/manifest.json", "train.json", "scores.jsonl.gz", "result.json")
_ROLLOUTS, _GRADED = "rollouts.jsonl.gz", "graded.jsonl.gz"


def main() -> None:
    """Run the arms, an arm on each GPU at a time; those that fail are named and the others go on."""
    options = parse_arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(options.bundle or find_bundle(dry=options.dry)) as bundle:
        bundle.extractall(options.work, filter="data")
    started = time.monotonic()
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in options.arms:
        waiting.put(name)
    done: dict[str, Future[bool] | bool] = {}
    # Judging needs no GPU: the next arm is taught meanwhile.
    with ThreadPoolExecutor(len(options.arms)) as judges:

        def work(gpu: str) -> None:
            while True:
                try:
                    name = waiting.get_nowait()
                except queue.Empty:
                    return
                made = run_arm(ARMS[name], options, gpu)
                judged = made and options.judge and ARMS[name].judged
                done[name] = judges.submit(judge_arm, ARMS[name], options) if judged else made

        workers = [threading.Thread(target=work, args=(gpu,)) for gpu in options.gpus]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    failed = [name for name in options.arms if not (end.result() if isinstance(end := done[name], Future) else end)]
    print(f"all arms: {time.monotonic() - started:.1f} s; failed: {', '.join(failed) or 'none'}", flush=True)
    sys.exit(bool(failed))


def parse_arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="what is to come back")
    parser.add_argument("--work", type=Path, default=Path("/tmp/learning"), help="weights and half-made files")
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--base", type=Path, default=None, help="folder with the base models: generator/, encoder/")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--hyper", nargs="*", default=[], help="NAME=VALUE for every arm, before the arm's own")
    parser.add_argument("--arm-hyper", nargs="*", default=[], help="ARM:NAME=VALUE, after the arm's own")
    parser.add_argument("--gpus", nargs="+", default=["0"])
    parser.add_argument("--shares", type=int, default=1, help="processes that answer the rows of an arm")
    parser.add_argument("--judge", action="store_true", help="grade and judge here too")
    parser.add_argument("--judge-options", type=shlex.split, default=[], help="of `judge`, as one word: '=--alpha .1'")
    parser.add_argument("--judge-threads", type=int, default=8)
    parser.add_argument("--dry", action="store_true")
    return parser.parse_args()


def run_arm(arm: Arm, options: argparse.Namespace, gpu: str) -> bool:
    """Teach and answer; True when both were done. Each in a process of its own, so that the next has the whole GPU."""
    folder = options.work / arm.name
    if not (folder / "study.jsonl.gz").is_file():
        print(f"{arm.name}: not in the bundle", flush=True)
        return False
    own = [text.partition(":")[2] for text in options.arm_hyper if text.partition(":")[0] == arm.name]
    teach = [*_name_base(options), "--hyper", *options.hyper, *arm.hyper, *own]
    serve = ["--precision", "fp16"]
    if options.dry:
        teach += ["epochs=1", "max_rows_per_batch=8", "batch_tokens=1024", "max_tokens=256", "upper_layers=2", "soup=1"]
        serve = ["--precision", "int8", "--max-tokens", "4", "--base-rows", "1"]
    if not arm.judged:
        serve += ["--parts", "test"]
    place = {"CUDA_VISIBLE_DEVICES": gpu}
    made = call_offline("train", arm, options, [teach], place) and answer_rows(arm, options, serve, place)
    # What there is comes back also after a failure: it is half of the work.
    pack_back(folder, options.out / f"{arm.name}.tar")
    return made


def answer_rows(arm: Arm, options: argparse.Namespace, serve: Sequence[str], place: Mapping[str, str]) -> bool:
    """Answer the rows of an arm by several processes, and join what they wrote."""
    folder, count = options.work / arm.name, options.shares
    if count == 1:
        return call_offline("rollouts", arm, options, [serve], place)
    each = [[*serve, "--share", f"{number}/{count}"] for number in range(count)]
    made = call_offline("rollouts", arm, options, each, place)
    # Members of gzip, one behind the other, are a file of gzip.
    parts = [folder / f"{number}-{_ROLLOUTS}" for number in range(count)]
    (folder / _ROLLOUTS).write_bytes(b"".join(part.read_bytes() for part in parts if part.is_file()))
    return made


def judge_arm(arm: Arm, options: argparse.Namespace) -> bool:
    """Grade and judge an arm that has been answered."""
    threads = ["--threads", str(options.judge_threads), *_name_base(options)]
    serve = ["--precision", "int8", "--max-tokens", "4", "--base-rows", "1"] if options.dry else ["--precision", "fp16"]
    made = call_offline("grade", arm, options, [threads], {}) and call_offline(
        "judge", arm, options, [[*threads, "--no-compute", *serve, *options.judge_options]], {}
    )
    pack_back(options.work / arm.name, options.out / f"{arm.name}.tar")
    return made


def call_offline(
    command: str, arm: Arm, options: argparse.Namespace, each: Sequence[Sequence[str]], place: Mapping[str, str]
) -> bool:
    """Run one offline command for each list of arguments, all at once; True when all ended well."""
    started = time.monotonic()
    environment = os.environ | {"PYTHONPATH": _python_path(), "PYTHONUNBUFFERED": "1", **place}
    common = [sys.executable, "-m", "shammah_trainer.offline", command, "--out", str(options.work / arm.name)]
    running = [subprocess.Popen([*common, *rest], env=environment) for rest in each]
    codes = [process.wait() for process in running]
    print(f"{arm.name}: {command} {time.monotonic() - started:.1f} s, exit codes {codes}", flush=True)
    return not any(codes)


def pack_back(folder: Path, target: Path) -> None:
    """Write what the other machine needs of an arm; graded rollouts hold all that the ungraded ones do."""
    rollouts = _GRADED if (folder / _GRADED).is_file() else _ROLLOUTS
    with tarfile.open(target, "w") as archive:
        for name in (*_BACK, rollouts):
            if (folder / name).is_file():
                archive.add(folder / name, name)


def _name_base(options: argparse.Namespace) -> list[str]:
    return ["--base", str(options.base)] if options.base is not None else []


def _python_path() -> str:
    own = [str(ROOT / part) for part in _PARTS]
    return os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH", "")])])


if __name__ == "__main__":
    main()
