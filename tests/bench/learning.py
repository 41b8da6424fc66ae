"""The learning study: what the student learns of twenty families, and what it may answer locally.

    python tests/bench/learning.py pack               # here: parts, studies, .bench/learning.tar
    python tests/bench/learning_gpu.py --out OUT      # on the GPU: teach, answer
    python tests/bench/learning.py finish --back OUT  # here: grade, judge, certify, figures and plots

`all` does the three on one machine. Figures go to `results/learning.json`, merged by id. Nothing is tuned or trained on
a test row; the listed ones are in `results/learning_test_ids.json`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

from learning_arms import ARMS, Arm, find_work
from learning_figures import make_figures
from learning_pack import pack, write_test_list
from learning_results import merge_figures
from shammah_trainer.offline.__main__ import main as offline
from shammah_trainer.offline.decide import RESULT_NAME
from system import RESULTS, Figure

HERE = Path(__file__).parent


def main() -> None:
    """Run one step, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("pack", "finish", "all"))
    parser.add_argument("--back", type=Path, default=None, help="what the machine with the GPU left")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--results", type=Path, default=None)
    parser.add_argument("--base", type=Path, default=None, help="folder of the base models, if not the usual one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--judge-options", type=shlex.split, default=[], help="of `judge`, as one word: '=--alpha .1'")
    parser.add_argument("--dry", action="store_true", help="a few rows on a CPU, to check the way; no figure counts")
    options = parser.parse_args()
    work = find_work(dry=options.dry)
    options.back = options.back or work / "back"
    options.results = options.results or (work / "results" if options.dry else RESULTS)
    arms = [ARMS[name] for name in options.arms]
    if options.step in ("pack", "all"):
        pack(arms, dry=options.dry)
    if options.step == "all":
        command = [sys.executable, str(HERE / "learning_gpu.py"), "--out", str(options.back), "--arms", *options.arms]
        command += ["--work", str(work / "gpu"), *(["--dry"] if options.dry else [])]
        command += ["--base", str(options.base)] if options.base else []
        subprocess.run(command, check=True)
    if options.step in ("finish", "all"):
        finish(arms, options)


def finish(arms: list[Arm], options: argparse.Namespace) -> None:
    """Grade and judge every arm that came back; write figures and plots."""
    work = find_work(dry=options.dry)
    where = [name for arm in arms if (name := finish_arm(arm, options))]
    listed = write_test_list(work / "test_list")
    figures = make_figures(work, listed)
    if options.dry:
        figures = [Figure(f"dry.{figure.id}", figure.value, figure.unit, figure.note) for figure in figures]
    merge_figures(figures, command="make bench-learning", where=" ".join(dict.fromkeys(where)), folder=options.results)
    from learning_plots import draw_plots  # here: matplotlib is only needed to draw

    ids = {name for names in listed.values() for name in names}
    for path in draw_plots(work, ids, options.results):
        print(f"drew {path}")


def finish_arm(arm: Arm, options: argparse.Namespace) -> str:
    """Unpack, grade, judge one arm; return the device that it was taught on ("" when nothing came back)."""
    archive, folder = options.back / f"{arm.name}.tar", find_work(dry=options.dry) / arm.name
    if not archive.is_file():
        print(f"{arm.name}: nothing came back")
        return ""
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    _share_base(folder)
    common = ["--out", str(folder), "--threads", str(options.threads)]
    common += ["--base", str(options.base)] if options.base else []
    # What was graded and judged beside the GPU is taken as it is.
    graded = (folder / "graded.jsonl.gz").is_file() and not (folder / "rollouts.jsonl.gz").is_file()
    if not graded and offline(["grade", *common]):
        raise SystemExit(f"arm {arm.name} could not be graded")
    if arm.judged and not (folder / RESULT_NAME).is_file():
        serve = ["--precision", "int8", "--max-tokens", "4", "--base-rows", "1"] if options.dry else []
        if offline(["judge", *common, "--no-compute", *(serve or ["--precision", "fp16"]), *options.judge_options]):
            raise SystemExit(f"arm {arm.name} could not be judged")
    return str(json.loads((folder / "train.json").read_text("utf-8"))["device"])


def _share_base(folder: Path) -> None:
    """Let all arms use one release 0: it is the same, and half a gigabyte."""
    base = folder.parent / "base"
    base.mkdir(parents=True, exist_ok=True)
    if not (folder / "base").exists():
        (folder / "base").symlink_to(base, target_is_directory=True)


if __name__ == "__main__":
    main()
