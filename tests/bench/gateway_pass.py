"""What the pass-through of the gateway costs: beside LiteLLM, beside TensorZero, and over the upstream itself.

Routing off, booking on, no caps. In each repetition every contestant has its turn with the same upstream and the same
load; a ratio is that of one repetition, and the median of them is the figure.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway_models import head_of, write_body
from gateway_rig import (
    MODEL,
    Litellm,
    Row,
    Talker,
    Target,
    run_bus,
    run_gateway,
    run_litellm,
    run_load,
    run_tensorzero,
    run_upstream,
)
from gateway_runs import QUICK, Plan, describe, median_of
from system import Figure

CLIENTS = (1, 16)
LITELLM_IDS = tuple(f"passthrough{count}_vs_litellm" for count in CLIENTS)
TENSORZERO_IDS = tuple(f"passthrough{count}_vs_tensorzero" for count in CLIENTS)
IDS = (*LITELLM_IDS, *TENSORZERO_IDS, "added_ms", "sse_first_ms", "sse16_per_s")
# The three ways of LiteLLM's proxy to a Messages upstream; the fastest one is its figure.
LITELLM_PATHS = ("/anthropic/v1/messages", "/v1/messages", "/v1/chat/completions")
QUERY = "What is the capital of France?"
_EVENTS = 100


@dataclass(slots=True)
class _Contest:
    """Everything that runs, and where its requests go."""

    load: Talker
    ours: Target
    direct: Target
    litellm: Litellm | None = None
    tensorzero: Talker | None = None
    paths: dict[int, Target] = field(default_factory=dict)


def measure(names: Sequence[str], plan: Plan) -> Iterator[Figure]:
    """Yield the figures of `names`."""
    with tempfile.TemporaryDirectory(prefix="shammah-bench-") as place, ExitStack() as stack:
        contest = _open(stack, Path(place), names)
        for count in CLIENTS:
            asked = [name for name in names if name.startswith(f"passthrough{count}_")]
            if asked:
                yield from _measure_rates(contest, asked, count, plan)
        parts: dict[str, Callable[[_Contest, Plan], Figure]] = {
            "added_ms": _measure_added,
            "sse_first_ms": _measure_first,
            "sse16_per_s": _measure_streams,
        }
        for name, part in parts.items():
            if name in names:
                yield part(contest, plan)


def _open(stack: ExitStack, folder: Path, names: Sequence[str]) -> _Contest:
    upstream = stack.enter_context(run_upstream(folder))
    load = stack.enter_context(run_load(folder))
    bus, tokens = stack.enter_context(run_bus(folder))
    gateway = stack.enter_context(run_gateway(folder, upstream, bus=bus, tokens=tokens, http_routing=False))
    head, body = head_of(gateway), write_body(QUERY, MODEL)
    ours = Target(f"{gateway.url}/v1/messages", head, [body], ["Paris", "x-shammah-route: teacher"])
    contest = _Contest(load, ours, replace(ours, url=f"{upstream}/v1/messages", expected=["Paris"]))
    if set(names) & set(LITELLM_IDS):
        contest.litellm = stack.enter_context(run_litellm(folder, upstream))
    if set(names) & set(TENSORZERO_IDS):
        contest.tensorzero = stack.enter_context(run_tensorzero(folder, upstream))
        # It answers when it has started: that must not fall into another's turn.
        _load_tensorzero(contest, 1, QUICK)
    _load(contest, contest.ours, max(CLIENTS), QUICK)
    return contest


def _measure_rates(contest: _Contest, names: Sequence[str], clients: int, plan: Plan) -> Iterator[Figure]:
    ours: list[Row] = []
    peers: dict[str, list[Row]] = {name: [] for name in names}
    for _ in range(plan.repetitions):
        ours.append(_load(contest, contest.ours, clients, plan))
        for name in names:
            if name in LITELLM_IDS:
                peers[name].append(_load_litellm(contest, clients, plan))
            else:
                peers[name].append(_load_tensorzero(contest, clients, plan))
    for name, rows in peers.items():
        ratios = [mine["per_second"] / peer["per_second"] for mine, peer in zip(ours, rows, strict=True)]
        if name in LITELLM_IDS:
            peer, more = "LiteLLM proxy 1.106.2", f" by {_path_of(contest.paths[clients])}"
        else:
            peer, more = "TensorZero 2026.6.0 embedded", " in-process"
        note = (
            f"requests/s, {describe(ratios)}; ours {_tell(ours)}; {peer}{more} {_tell(rows)}; {clients} at a time, "
            f"{plan.seconds:g} s a turn"
        )
        rate = median_of(rows, "per_second")
        yield Figure(name, statistics.median(ratios), "times the peer", note, f"{peer}, requests/s", rate)


def _load(contest: _Contest, target: Target, clients: int, plan: Plan) -> Row:
    return contest.load.ask(targets=[target], clients=clients, seconds=plan.seconds, warm=plan.warm)[0]


def _load_litellm(contest: _Contest, clients: int, plan: Plan) -> Row:
    assert contest.litellm is not None
    with contest.litellm.awake():
        if clients not in contest.paths:
            contest.paths[clients] = _find_path(contest, contest.litellm, clients, plan)
        return _load(contest, contest.paths[clients], clients, plan)


def _find_path(contest: _Contest, litellm: Litellm, clients: int, plan: Plan) -> Target:
    """Return LiteLLM's fastest way, each warmed by a turn of its own first."""
    found: list[tuple[float, Target]] = []
    for path in LITELLM_PATHS:
        head = {**contest.ours.headers, "authorization": f"Bearer {litellm.key}"}
        target = Target(f"{litellm.url}{path}", head, contest.ours.bodies, ["Paris"])
        rows = [_load(contest, target, clients, replace(plan, warm=30)) for _ in range(2)]
        found.append((rows[-1]["per_second"], target))
    return max(found, key=lambda one: one[0])[1]


def _path_of(target: Target) -> str:
    return next(path for path in LITELLM_PATHS if target.url.endswith(path))


def _load_tensorzero(contest: _Contest, clients: int, plan: Plan) -> Row:
    assert contest.tensorzero is not None
    params = {"chat_completion": {"max_tokens": 64}}
    return contest.tensorzero.ask(clients=clients, seconds=plan.seconds, warm=plan.warm, content=QUERY, params=params)[
        0
    ]


def _measure_added(contest: _Contest, plan: Plan) -> Figure:
    return measure_added("added_ms", contest.load, contest.direct, contest.ours, plan)


def measure_added(name: str, load: Talker, direct: Target, ours: Target, plan: Plan) -> Figure:
    """Return the difference of the medians of turns that alternate between the upstream and us."""
    pairs = [
        load.ask(targets=[direct, ours], clients=1, requests=plan.turn, turns=plan.turns, warm=plan.warm)
        for _ in range(plan.repetitions)
    ]
    added = [through["p50_ms"] - straight["p50_ms"] for straight, through in pairs]
    straight, through = zip(*pairs, strict=True)
    note = (
        f"{describe(added, ' ms')}; p50 straight {median_of(straight, 'p50_ms'):.3g} ms, through us "
        f"{median_of(through, 'p50_ms'):.3g} ms, p99 {median_of(through, 'p99_ms'):.3g} ms; 1 client, turns of "
        f"{plan.turn} requests, {plan.turns} of each a repetition"
    )
    return Figure(name, statistics.median(added), "ms", note)


def _measure_first(contest: _Contest, plan: Plan) -> Figure:
    ours, direct = _as_stream(contest.ours), _as_stream(contest.direct)
    targets = [_pace(direct), _pace(ours), direct, ours]
    rows = [
        contest.load.ask(targets=targets, clients=1, requests=plan.turn, turns=plan.stream_turns, warm=plan.warm)
        for _ in range(plan.repetitions)
    ]
    straight, through, _, flooded = ([row["first_p50_ms"] for row in column] for column in zip(*rows, strict=True))
    note = (
        f"{describe(through, ' ms')} from the upstream's write of the first event to the client's first byte, p50; "
        f"straight {statistics.median(straight):.3g} ms; the upstream rests 3 ms after that event. Where it goes on at "
        f"once and takes a core: {statistics.median(flooded):.3g} ms ({min(flooded):.3g} to {max(flooded):.3g})"
    )
    return Figure("sse_first_ms", statistics.median(through), "ms", note)


def _pace(target: Target) -> Target:
    """Return the same streams with a rest of the upstream after the first event."""
    return replace(target, bodies=[{**body, "metadata": {"user_id": "paced"}} for body in target.bodies])


def _measure_streams(contest: _Contest, plan: Plan) -> Figure:
    ours, direct = _as_stream(contest.ours), _as_stream(contest.direct)
    through, straight = [], []
    for _ in range(plan.repetitions):
        through.append(_load(contest, ours, 16, plan))
        straight.append(_load(contest, direct, 16, plan))
    note = (
        f"{describe([row['per_second'] for row in through])}; p50 {median_of(through, 'p50_ms'):.3g} ms a stream of "
        f"{_EVENTS} events, a chunk and a write of the upstream each (those that arrive together go on together); "
        f"straight {median_of(straight, 'per_second'):.4g}/s"
    )
    return Figure("sse16_per_s", median_of(through, "per_second"), "streams/s", note)


def _as_stream(target: Target) -> Target:
    bodies = [{**body, "stream": True} for body in target.bodies]
    return replace(target, bodies=bodies, expected=["message_stop"], events=_EVENTS)


def _tell(rows: Sequence[Row]) -> str:
    rates = [row["per_second"] for row in rows]
    return (
        f"{statistics.median(rates):.4g}/s ({min(rates):.4g} to {max(rates):.4g}), p50 {median_of(rows, 'p50_ms'):.3g} "
        f"ms, p99 {median_of(rows, 'p99_ms'):.3g} ms"
    )
