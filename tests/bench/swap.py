"""Two hundred requests over a release swap, and the time of a rollback, on the real models.

Trains one small round on the demo's own workload so that two releases exist, the newer one serving locally. Then, with
200 requests in flight, the champion is switched back and forth. A request counts as `swap_failed` when it failed, when
its versions are not those of one release, or when it was forwarded for a reason that only a swap can cause.
Writes `results/swap.json`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from shammah.v1 import gateway_pb2, types_pb2
from shammah_chassis.errors import ShammahError
from shammah_chassis.workload import read_workload
from shammah_gateway.cli.client import GatewayClient
from shammah_gateway.cli.learn import learn
from shammah_gateway.cli.manage import call_tool, list_releases
from shammah_gateway.demo.workload import write_workload
from system import Figure, pull_models, running, with_client, write_results

IN_FLIGHT = 200
ROLLBACKS = 5
SWAP_REASONS = {"late", "overloaded", "unavailable"}
SETTINGS = [
    "SHAMMAH_GATEWAY_TEACHER=recorded",
    "SHAMMAH_GATEWAY_AUDIT_RATE=0",
    "SHAMMAH_GATEWAY_EXPLORE_RATE=0",
    "SHAMMAH_GATEWAY_ROLE_TIMEOUT_SECONDS=120",
    "SHAMMAH_TRAINER_AUTO_TRAIN=false",
    "SHAMMAH_TRAINER_ALPHA=0.2",
    "SHAMMAH_TRAINER_SFT_UPPER_LAYERS=10",
    "SHAMMAH_TRAINER_SFT_LEARNING_RATE=3e-4",
    "SHAMMAH_TRAINER_BASE_ROWS=10",
]
CATEGORIES = ("command_intent", "ticket_routing")


async def ask(client: GatewayClient, query: str) -> gateway_pb2.AskResponse:
    """Ask one query without learning from it."""
    request = gateway_pb2.AskRequest(messages=[types_pb2.Message(role="user", content=query)], no_learn=True)
    answer = await client.call(client.stub.Ask, request, timeout=300)
    assert isinstance(answer, gateway_pb2.AskResponse)
    return answer


async def roll_back(client: GatewayClient, release: str) -> None:
    """Go back to an older release."""
    request = gateway_pb2.RollbackReleaseRequest(release=release)
    await client.call(client.stub.RollbackRelease, request, timeout=120)


async def promote(client: GatewayClient, release: str) -> None:
    """Make a newer release the champion again."""
    request = gateway_pb2.PromoteReleaseRequest(release=release)
    await client.call(client.stub.PromoteRelease, request, timeout=120)


def count_faults(answers: list[gateway_pb2.AskResponse | BaseException], versions: dict[str, set[str]]) -> Counter[str]:
    """Count failed, mixed and swap-forwarded answers; `versions` maps a release to its version ids."""
    faults: Counter[str] = Counter()
    for answer in answers:
        if isinstance(answer, BaseException):
            faults[f"failed: {answer}"] += 1
            continue
        used = {answer.versions.router, answer.versions.generator, answer.versions.validator} - {""}
        if not used <= versions[answer.versions.release]:
            faults["mixed"] += 1
        if answer.reason in SWAP_REASONS:
            faults[f"forwarded: {answer.reason}"] += 1
    return faults


async def measure_swap(
    client: GatewayClient, queries: list[str], old: str, new: str
) -> tuple[Counter[str], Counter[str]]:
    """Put 200 requests in flight, switch new -> old -> new meanwhile; returns faults and answers by release."""
    infos = {info.id: info.versions for info in await list_releases(client)}
    versions = {name: {info.router, info.generator, info.validator} for name, info in infos.items()}
    tasks = [asyncio.create_task(ask(client, queries[i % len(queries)])) for i in range(IN_FLIGHT)]
    await asyncio.sleep(0.5)
    await roll_back(client, old)
    late = [asyncio.create_task(ask(client, queries[i % len(queries)])) for i in range(IN_FLIGHT // 4)]
    await promote(client, new)
    answers = await asyncio.gather(*tasks, *late, return_exceptions=True)
    releases = Counter(answer.versions.release for answer in answers if not isinstance(answer, BaseException))
    return count_faults(answers, versions), releases


async def measure_rollback(client: GatewayClient, query: str, old: str, new: str) -> list[float]:
    """Time the command to the first answer by the old release, several times, in seconds."""
    seconds = []
    for _ in range(ROLLBACKS):
        begun = time.perf_counter()
        await roll_back(client, old)
        while (await ask(client, query)).versions.release != old:
            await asyncio.sleep(0.005)
        seconds.append(time.perf_counter() - begun)
        await promote(client, new)
        while (await ask(client, query)).versions.release != new:
            await asyncio.sleep(0.005)
    return seconds


async def prepare(client: GatewayClient, folder: Path) -> tuple[str, str, list[str]]:
    """Teach two demo categories in one round; returns the old release, the new one, and queries that it serves."""
    files = write_workload(folder)
    exam = [row for row in read_workload(files.exam).rows if row.example.category in CATEGORIES]
    teach = [row for row in read_workload(files.teach).rows if row.example.category in CATEGORIES]
    await learn(client, exam, exam=True)
    await learn(client, teach, exam=False)
    old = (await list_releases(client))[0].id
    result = await call_tool(client, "train", {"wait": True}, wait=True)
    new = str(result["release"])
    limit = time.monotonic() + 60
    check = [row.example.query_text for row in read_workload(files.check).rows if row.example.category in CATEGORIES]
    while (await ask(client, check[0])).versions.release != new:
        if time.monotonic() > limit:
            raise ShammahError(f"release {new} was not promoted: {result['verdict']} {result['reasons']}")
        await asyncio.sleep(0.2)
    return old, new, check


async def work(client: GatewayClient, folder: Path) -> None:
    """Measure and write the figures."""
    old, new, queries = await prepare(client, folder)
    faults, releases = await measure_swap(client, queries, old, new)
    print(json.dumps({"faults": faults, "answers by release": releases}, indent=1))
    seconds = await measure_rollback(client, queries[0], old, new)
    print(json.dumps({"rollback seconds": seconds}))
    note = (
        f"of {sum(releases.values())} requests over two swaps; {dict(faults)}; by release {sorted(releases.values())}"
    )
    write_results(
        "swap",
        "make bench-swap",
        [
            Figure("swap_failed", float(sum(faults.values())), "requests", note),
            Figure("rollback_s", statistics.median(seconds), "s", f"median of {ROLLBACKS}; most {max(seconds):.3f}"),
        ],
    )


def main() -> None:
    """Run the benchmark."""
    pull_models()
    with tempfile.TemporaryDirectory() as workload:
        files = write_workload(Path(workload))
        recorded = f"SHAMMAH_GATEWAY_RECORDED_FILES={files.teacher}"
        with running([*SETTINGS, recorded]) as folder:
            with_client(folder, lambda client: work(client, Path(workload)))


if __name__ == "__main__":
    main()
