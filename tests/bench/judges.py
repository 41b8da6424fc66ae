"""What router and validator can learn from `../shared/data`: fine-tuned on train files, scored once on test files.

python tests/bench/judges.py --try 200                     # a try on the CPU: cross-fitted figures of few train rows
python tests/bench/judges.py --pack .bench/judges.tar.xz   # rows and encoder in one file, for a machine without
python tests/bench/judges.py --archive .bench/judges.tar.xz --device cuda --final --out judges.json
python tests/bench/judges.py --merge judges.json           # into results/learning.json, by figure id
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judges_data import DATA, ENCODER, Site, pack, unpack
from judges_report import report_routing, report_validator
from judges_router import study_routing
from judges_tune import Base, Recipe
from judges_validator import Study, study_hallucination, study_relevance
from shammah_chassis.encoder import TextTokenizer
from shammah_trainer.encoders.bert import load_hugging_face

RESULTS = Path(__file__).parent / "results" / "learning.json"
Figure = dict[str, Any]


def main() -> None:
    """Run what the command line asks for."""
    options = _parse()
    if options.merge:
        merge(json.loads(options.merge.read_text("utf-8")))
    elif options.pack:
        pack(Site(DATA, ENCODER), options.pack)
        print(f"{options.pack}: {options.pack.stat().st_size / 1e6:.1f} MB")
    else:
        with _find_site(options) as site:
            figures = study(site, torch.device(options.device), options)
        if options.out:
            options.out.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def study(site: Site, device: torch.device, options: argparse.Namespace) -> list[Figure]:
    """Run the studies; `--final` scores the test files, else figures are cross-fitted on train rows."""
    started = time.monotonic()
    base = Base(load_hugging_face(site.encoder), TextTokenizer(site.encoder / "tokenizer.json", max_tokens=512), device)
    recipe = Recipe(epochs=options.epochs)
    figures: list[Figure] = []

    def add(found: list[Figure]) -> None:
        for figure in found:
            print(
                f"{time.monotonic() - started:6.1f} s  {figure['id']} {figure['value']:.4f}  {figure['note']}",
                flush=True,
            )
        figures.extend(found)

    final, only = options.final, options.only
    for name in ("router_routellm_mmlu", "router_llmrouter9"):
        if only in ("all", "router"):
            add(report_routing(study_routing(site, base, name, test=final, recipe=recipe), name, test=final))
    studies: dict[str, Study] = {}
    if only in ("all", "hallucination"):
        studies = study_hallucination(site, base, test=final, recipe=recipe)
    if only in ("all", "relevance"):
        studies["relevance"] = study_relevance(site, base, test=final, recipe=recipe)
    add(report_validator(studies, test=final))
    seconds = round(time.monotonic() - started, 1)
    add([{"id": "judges_seconds", "value": seconds, "unit": "s", "note": f"all of it on {_name(device)}"}])
    return figures


def merge(figures: list[Figure], path: Path = RESULTS) -> None:
    """Put figures into a results file in the place of those with the same ids; the others stay."""
    body: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    body.setdefault("command", "make bench-learning")
    body.setdefault("machine", platform.platform())
    body["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    new = {figure["id"]: figure for figure in figures}
    kept = [new.pop(figure["id"], figure) for figure in body.get("figures", [])]
    body["figures"] = [*kept, *new.values()]
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(body, indent=1) + "\n", "utf-8")
    aside.replace(path)


@contextmanager
def _find_site(options: argparse.Namespace) -> Iterator[Site]:
    if options.archive is None:
        yield Site(DATA, options.encoder, options.rows)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = unpack(options.archive, Path(folder))
        yield Site(found.data, found.encoder, options.rows)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--archive", type=Path, help="take rows and encoder from this file")
    parser.add_argument("--final", action="store_true", help="score the test files (once, at the end)")
    parser.add_argument("--try", dest="rows", type=int, default=0, metavar="ROWS", help="rows of each train file")
    parser.add_argument("--only", choices=("all", "router", "hallucination", "relevance"), default="all")
    parser.add_argument("--encoder", type=Path, default=ENCODER, help="folder of the base encoder")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, help="write the figures here")
    parser.add_argument("--pack", type=Path, help="only write the archive")
    parser.add_argument("--merge", type=Path, help="only merge these figures into results/learning.json")
    options = parser.parse_args()
    if options.final and options.rows:
        parser.error("--final takes all rows; leave out --try")
    np.random.seed(0)
    return options


if __name__ == "__main__":
    main()
