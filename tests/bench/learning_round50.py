"""How long a small round takes: 50 examples of 3 categories, 100 dev and 100 exam rows of each (`round50_*_s`).

    python tests/bench/learning_round50.py cut                           # where the data lies: .bench/round50.tar
    python tests/bench/learning_round50.py run --device cpu|cuda [...]   # measure, one JSON line a round to --out
    python tests/bench/learning_round50.py run ... --profile FOLDER      # and where the time went, by function
    python tests/bench/learning_round50.py write FILE...                 # figures of such files

From the start of a round to a release that has answered a query: all phases of the trainer's own `Round`, publishing
into a store, loading the three versions as the services do (each its own, at the same time), one answer. In one
process: what is missing of a running system is the copy from the store and two calls of gRPC. Release 0 exists before,
as in every system that runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

# Read when torch is loaded; see `shammah_trainer.__main__`.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", str(min(4, os.cpu_count() or 1)))

from learning_arms import ROOT
from learning_stopwatch import Stopwatch
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.manifest import Role
from shammah_chassis.ulid import new_ulid
from shammah_trainer.base_models import find_models_dir, pull
from shammah_trainer.later import Later
from shammah_trainer.ledger import Ledger
from shammah_trainer.offline.decide import open_release_zero
from shammah_trainer.offline.prepare import LEDGER_NAME, Cut, Files, prepare
from shammah_trainer.offline.study import STUDY_NAME, Study, read_study, write_study
from shammah_trainer.phases import Phases
from shammah_trainer.publishing import Version, publish
from shammah_trainer.rollouts import RolloutSettings, complete_rows, load_for_rollouts
from shammah_trainer.round import PHASES, Round, RoundInputs, RoundSettings
from shammah_trainer.scoring import judge_responses, route_queries
from shammah_trainer.sft import SftHyper

FAMILIES = ("spam_sms", "sentiment_reviews", "topic_stackoverflow")
BUNDLE = ROOT / ".bench" / "round50.tar"
CUT = Cut(family_rows=1400, exam_rows=100, train_rows=50, judged_rows=100)


def main() -> None:
    """Cut, run or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("cut")
    command = commands.add_parser("run")
    command.add_argument("--device", choices=("cpu", "cuda"), required=True)
    command.add_argument("--bundle", type=Path, default=BUNDLE)
    command.add_argument("--base", type=Path, default=None)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--profile", type=Path, default=None)
    command.add_argument("--rows", type=int, default=0, help="dev and exam rows of each part; a dry run takes few")
    command = commands.add_parser("write")
    command.add_argument("files", type=Path, nargs="+")
    command.add_argument("--beside", default="", help="what else ran there meanwhile, for the note")
    options = parser.parse_args()
    if options.command == "cut":
        cut()
    elif options.command == "write":
        write(options.files, options.beside)
    else:
        run(options)


def cut() -> None:
    """Cut ledger and study from the train files."""
    from system import DATA  # here: a machine that only measures has no gateway to import

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = prepare(Files(train=tuple(DATA / f"{family}.train.jsonl.gz" for family in FAMILIES)), CUT, folder)
        write_study(made.study, folder / STUDY_NAME)
        sizes = {part: len(made.study.rows(part)) for part in ("train", "dev", "exam")}
        BUNDLE.parent.mkdir(exist_ok=True)
        with tarfile.open(BUNDLE, "w") as bundle:
            for item in (LEDGER_NAME, STUDY_NAME):
                bundle.add(folder / item, item)
    print(f"{BUNDLE}: {sizes}, {BUNDLE.stat().st_size / 1e6:.1f} MB")


def choose_settings(device: str, threads: int) -> RoundSettings:
    """Return what a round is told: on a CPU the demo's settings, on a GPU all layers and fp16 that serves."""
    cuda = device == "cuda"
    return RoundSettings(
        sft=SftHyper(
            epochs=2,
            learning_rate=2e-4 if cuda else 3e-4,
            upper_layers=0 if cuda else 10,
            batch_tokens=4096 if cuda else 1024,
        ),
        rollouts=RolloutSettings(
            precision="fp16" if cuda else "int8", threads=threads, slots=256 if cuda else 16, context=1024
        ),
        validator_seconds=15.0,
        base_rows=15,
        threads=threads,
        device=device,
    )


def run(options: argparse.Namespace) -> None:
    """Run some rounds, each from release 0, and append what each took."""
    settings = choose_settings(options.device, options.threads)
    with tempfile.TemporaryDirectory(prefix="round50-") as name:
        folder = Path(name)
        with tarfile.open(options.bundle) as bundle:
            bundle.extractall(folder, filter="data")
        study = read_study(folder / STUDY_NAME)
        plan = study.plan
        if options.rows:
            plan = replace(plan, dev=plan.dev[: options.rows], exam=plan.exam[: options.rows])
        base = pull(options.base or find_models_dir(), progress=print)
        zero, parents = open_release_zero(base, folder, precision=settings.rollouts.precision)
        for number in range(options.rounds):
            inputs = RoundInputs(
                id=new_ulid(), work=folder / f"work{number}", champion=zero, parents=parents, plan=plan, fence=0
            )
            inputs.work.mkdir()
            entry = {"device": options.device, "round": number, "threads": options.threads}
            with profiled(options.profile, number):
                entry |= measure(study, inputs, settings, folder)
            with options.out.open("a", encoding="utf-8") as target:
                target.write(json.dumps(entry) + "\n")
            print(entry, flush=True)


@contextmanager
def profiled(out: Path | None, number: int) -> Iterator[None]:
    """Write what took how long, of all threads, as two tables a round; it slows the round by a tenth or more."""
    if out is None:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    watch = Stopwatch()
    with watch.watching():
        yield
    (out / f"round{number}.txt").write_text(watch.tell(), "utf-8")


def measure(study: Study, inputs: RoundInputs, settings: RoundSettings, folder: Path) -> dict[str, Any]:
    """Run one round until its release has answered; return seconds by phase and in all, and what it came to."""
    ledger = Ledger(folder / LEDGER_NAME)
    # The champion's answers are kept from its own round; those of release 0 are made here each time.
    ledger.execute("DELETE FROM rollouts")
    phases = Phases((*PHASES, ("serve", 0.1)), lambda stage, share: None)
    started = time.monotonic()
    with closing(ledger):
        product = Round(ledger, inputs, settings, phases).compute()
    with phases.run("publish", "publishing"):
        asyncio.run(publish_alone(folder / "store", product.release, product.versions))
    with phases.run("serve", "loading and answering"):
        served = serve(study, product.versions, settings)
    result = product.result
    return {
        "seconds": round(time.monotonic() - started, 2),
        "phases": dict(phases.seconds),
        "verdict": product.release.verdict,
        "train": result["examples_trained"],
        "dev": result["dev_rows"],
        "exam": result["exam_rows"],
        "certified": sum(policy.threshold is not None for policy in product.release.categories.values()),
        "answered": served,
    }


async def publish_alone(root: Path, release: Any, versions: dict[Role, Version]) -> None:
    """Publish as a trainer that nobody disputes the lease."""

    async def alone() -> None:
        return

    await publish(DirectoryStore(root), release, versions, check_lease=alone)


def serve(study: Study, versions: dict[Role, Version], settings: RoundSettings) -> bool:
    """Route, answer and judge one query with freshly loaded versions; return whether there was a whole answer."""
    row = study.rows("exam")[0]
    query, folder = row.example.query_text, versions["generator"].folder
    router, validator = versions["router"], versions["validator"]
    # Services are processes of their own: the router loads and answers while the generator loads.
    loading = Later(lambda: load_for_rollouts(folder, settings.rollouts), name="generator")
    try:
        routed = route_queries(router.folder, router.manifest, [query], threads=settings.threads)[0]
        chunks = list(complete_rows(loading.take, [row], limits={row.category: 16}, settings=settings.rollouts))
    finally:
        loading.close()
    ((_, made),) = chunks[0]
    item = (query, made.text, routed.category, tuple(made.statistics.as_features()))
    judged = judge_responses(validator.folder, validator.manifest, [item], threads=settings.threads)
    return made.reason == "stop" and 0.0 <= judged[0].quality <= 1.0


def write(files: list[Path], beside: str) -> None:
    """Write `round50_gpu_s` and `round50_cpu_s`: medians over the rounds of a device."""
    from learning_results import merge_figures  # here: as above
    from system import Figure

    entries = [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]
    for device, id_, where in (("cuda", "round50_gpu_s", "NVIDIA H200"), ("cpu", "round50_cpu_s", "")):
        own = [entry for entry in entries if entry["device"] == device]
        if not own:
            continue
        middle = sorted(own, key=lambda entry: entry["seconds"])[(len(own) - 1) // 2]
        phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in middle["phases"].items())
        note = (
            f"median of {len(own)} rounds in one process ({own[0]['seconds']:.1f} s the first); "
            f"{middle['train']} train, {middle['dev']} dev, {middle['exam']} exam rows; {middle['threads']} threads; "
            f"seconds: {phases}{beside and f'; beside {beside}'}"
        )
        value = round(statistics.median(entry["seconds"] for entry in own), 1)
        merge_figures([Figure(id_, value, "s", note)], command="python tests/bench/learning_round50.py", where=where)


if __name__ == "__main__":
    main()
