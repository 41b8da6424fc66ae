"""The gateway's front doors: what they cost beside LiteLLM and TensorZero, and how fast local answers are.

All talk to the same upstream stub and are driven by the same load generator, each in a process of its own (TensorZero
is a library and calls itself). Needs `make bench-gateway-peers` once. `--quick` only shows that everything runs: one
short repetition, nothing is written. `--only` measures some figures and puts them into the file beside the others.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace

import gateway_pass
import gateway_routed
from gateway_runs import FULL, QUICK
from system import RESULTS, Figure, pull_models, write_results

PARTS = (gateway_pass, gateway_routed)
ALL = tuple(name for part in PARTS for name in part.IDS)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help=f"comma-separated; of {', '.join(ALL)}")
    parser.add_argument("--quick", action="store_true", help="one short repetition; writes nothing")
    parser.add_argument("--repetitions", type=int, help=f"{FULL.repetitions} if not given")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else list(ALL)
    if unknown := set(wanted) - set(ALL):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(ALL)}")
    plan = QUICK if options.quick else FULL
    if options.repetitions:
        plan = replace(plan, repetitions=options.repetitions)
    pull_models()
    figures = {} if options.quick or not options.only else read_figures()
    for part in PARTS:
        names = [name for name in part.IDS if name in wanted]
        for figure in part.measure(names, plan) if names else ():
            print(f"{figure.id}: {figure.value:.4g} {figure.unit}\n  {figure.note}", flush=True)
            figures[figure.id] = replace(figure, note=f"{figure.note}; load average {os.getloadavg()[1]:.1f}")
            if not options.quick:
                write_results("gateway", "make bench-gateway", [figures[name] for name in ALL if name in figures])


def read_figures() -> dict[str, Figure]:
    """Return the figures of the last run by id."""
    path = RESULTS / "gateway.json"
    known = json.loads(path.read_text("utf-8"))["figures"] if path.is_file() else []
    return {figure["id"]: Figure(**figure) for figure in known}


if __name__ == "__main__":
    main()
