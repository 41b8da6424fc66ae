"""What the gateway adds where it routes, and how fast it answers itself: real pods, real base models, CPU, 1 client."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from gateway_models import ANSWER_TOKENS, LOCAL_TOKENS, PRECISION, ROUTED_TOKENS, Whole, run_whole
from gateway_pass import measure_added
from gateway_rig import Talker, run_bus, run_load, run_upstream
from gateway_runs import Plan, describe, median_of
from system import Figure

IDS = ("added_ms_routed", "local_p50_ms")


def measure(names: Sequence[str], plan: Plan) -> Iterator[Figure]:
    """Yield the figures of `names`."""
    with tempfile.TemporaryDirectory(prefix="shammah-bench-") as place, ExitStack() as stack:
        folder = Path(place)
        upstream = stack.enter_context(run_upstream(folder))
        load = stack.enter_context(run_load(folder))
        bus, tokens = stack.enter_context(run_bus(folder))
        whole = stack.enter_context(run_whole(folder, upstream, bus=bus, tokens=tokens))
        if "added_ms_routed" in names:
            yield _measure_routed(load, upstream, whole, plan)
        if "local_p50_ms" in names:
            yield _measure_local(load, whole, plan)


def _measure_routed(load: Talker, upstream: str, whole: Whole, plan: Plan) -> Figure:
    direct = replace(whole.forwarded, url=f"{upstream}/v1/messages", expected=["Paris"])
    slower = replace(plan, turns=max(2, plan.turns // 4))
    figure = measure_added("added_ms_routed", load, direct, whole.forwarded, slower)
    more = f"; {ROUTED_TOKENS}-token queries, the router's answer, then the pass-through; each answer is learned from"
    return replace(figure, note=figure.note + more)


def _measure_local(load: Talker, whole: Whole, plan: Plan) -> Figure:
    rows = [load.ask(targets=[whole.local], clients=1, requests=plan.local, warm=5)[0] for _ in range(plan.repetitions)]
    note = (
        f"{describe([row['p50_ms'] for row in rows], ' ms')}; p99 {median_of(rows, 'p99_ms'):.3g} ms; "
        f"router, generator ({PRECISION}) and validator as processes of their own; {LOCAL_TOKENS}-token prompts of one "
        f"task, {ANSWER_TOKENS} tokens and the end; {plan.local} requests a repetition, 1 client"
    )
    return Figure("local_p50_ms", statistics.median(row["p50_ms"] for row in rows), "ms", note)
