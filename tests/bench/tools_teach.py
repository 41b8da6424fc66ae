"""The offline teaching loop on four families, against the same rows fed in random order; and what teaching costs.

Both arms start from the base models with the same exam rows and the same pool, train the same number of examples a
round, and stop when analyze_model measures the goal (the mean certified local share). `teach` chooses what to ask the
recorded teacher for; `random` takes the next rows of the shuffled pool, through `shammah learn`. Writes
`results/tools.json` (its own figures only).

`teach_usd`: the conversation of the planner `claude` for as many rounds, driven by the scripted teacher of the tests on
the strict Messages stub, and the wishes and examples of that many rows, at the price table. The stub's usage: a token
is four characters; nothing is read from a cache and no batch is used, so it is the dear end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from shammah_chassis.workload import WorkloadRow, read_workload
from shammah_gateway.agreement import GROUP
from shammah_gateway.cli.client import GatewayClient
from shammah_gateway.cli.console import err
from shammah_gateway.cli.learn import learn
from shammah_gateway.cli.manage import call_tool
from shammah_gateway.cli.paths import find_connection
from shammah_gateway.money.prices import load_prices
from shammah_gateway.money.usage import Usage
from shammah_gateway.teach.display import Display
from shammah_gateway.teach.ending import BAD
from shammah_gateway.teach.findings import describe_exam_needs, list_exam_needs, measure, read_findings
from shammah_gateway.teach.run import Claude, Place, teach
from shammah_gateway.teach.settings import MODEL, Goal, TeachSettings
from shammah_gateway.teachers.base import MAX_DIRECT, OfferedExample, Wish
from shammah_gateway.teachers.wishes import write_wish
from system import ROOT, Figure, need_data, pull_models, running, with_client
from tools_results import write_figures

sys.path.insert(0, str(ROOT / "tests"))
FAMILIES = ("spam_sms", "sentiment_reviews", "topic_stackoverflow", "extract_restaurant8k")
SEED = 11
CHARS_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: rows a family (pool to teach, exam), examples a round, rounds, goal and promise."""

    pool: int
    exam: int
    examples: int
    rounds: int
    goal: float
    alpha: float
    tests: int


FULL = Size(pool=600, exam=240, examples=160, rounds=6, goal=0.6, alpha=0.1, tests=100)
QUICK = Size(pool=60, exam=30, examples=60, rounds=2, goal=0.6, alpha=0.3, tests=50)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of both arms."""

    pool: Sequence[WorkloadRow]
    exam: Sequence[WorkloadRow]
    teach_file: Path

    @property
    def categories(self) -> tuple[str, ...]:
        """The names under which the families are taught."""
        return tuple(sorted({row.example.category for row in self.pool}))


@dataclass(frozen=True, slots=True)
class Reached:
    """What an arm came to: rounds and examples until it stopped, the share measured then, and why it stopped."""

    rounds: int
    examples: int
    share: float
    why: str


def write_rows(folder: Path, size: Size) -> Rows:
    """Cut pool and exam from the train files, and write the pool as the recorded teacher's file."""
    pool: list[WorkloadRow] = []
    exam: list[WorkloadRow] = []
    lines: list[str] = []
    for path in need_data(*(f"{name}.train.jsonl.gz" for name in FAMILIES)):
        rows = list(read_workload(path).rows)
        random.Random(f"{SEED}/{path.name}").shuffle(rows)
        exam += rows[: size.exam]
        mine = rows[size.exam : size.exam + size.pool]
        pool += mine
        lines += [write_row(row) for row in mine]
    random.Random(SEED).shuffle(pool)
    file = folder / "pool.jsonl"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return Rows(pool, exam, file)


def write_row(row: WorkloadRow) -> str:
    """Return a row in the workload form, as a row that may be taught."""
    example = row.example
    metadata = {"family": example.category, "metric": example.grader, "split": "train"}
    values = {"id": row.id, "source": example.provenance.source, "license": example.provenance.licence}
    words = {"category": example.category, "query": example.query_text, "reference": example.response}
    return json.dumps({**values, **words, "metadata": metadata}, ensure_ascii=False)


def list_settings(rows: Rows, size: Size) -> list[str]:
    """Return the settings of both arms: those of the demo, for two cores."""
    return [
        "SHAMMAH_GATEWAY_TEACHER=recorded",
        f"SHAMMAH_GATEWAY_RECORDED_FILES={rows.teach_file}",
        "SHAMMAH_GATEWAY_AUDIT_RATE=0",
        "SHAMMAH_GATEWAY_EXPLORE_RATE=0",
        "SHAMMAH_GATEWAY_ROLE_TIMEOUT_SECONDS=60",
        f"SHAMMAH_TRAINER_ALPHA={size.alpha}",
        "SHAMMAH_TRAINER_AUTO_TRAIN=false",
        "SHAMMAH_TRAINER_SFT_UPPER_LAYERS=10",
        "SHAMMAH_TRAINER_SFT_LEARNING_RATE=3e-4",
        "SHAMMAH_TRAINER_SFT_EPOCHS=2",
        "SHAMMAH_TRAINER_BASE_ROWS=15",
        "SHAMMAH_TRAINER_VALIDATOR_SECONDS=15",
        "SHAMMAH_TRAINER_ROLLOUT_SLOTS=16",
    ]


def run_teaching(rows: Rows, size: Size) -> Reached:
    """Arm `teach`: the offline planner on the five tools."""
    settings = TeachSettings(
        goal=Goal("local_share", size.goal),
        rounds=size.rounds,
        categories=rows.categories,
        examples=size.examples,
        tests=size.tests,
    )
    with running(list_settings(rows, size)) as folder:
        with_client(folder, lambda client: learn(client, rows.exam, exam=True))
        place = Place(root=folder / "teach", find=lambda: find_connection(folder))
        report = asyncio.run(teach(place, settings, lambda told: Display(err, told)))
    if report["state"] in BAD:
        raise SystemExit(f"the teaching session failed: {report['reason']}")
    why = f"{report['state']}: {report['reason']}"
    return Reached(report["rounds"], report["examples"], report["after"], why)


def run_random(rows: Rows, size: Size) -> Reached:
    """Arm `random`: the next rows of the shuffled pool, as many a round."""
    with running(list_settings(rows, size)) as folder:
        return with_client(folder, lambda client: feed(client, rows, size))


async def feed(client: GatewayClient, rows: Rows, size: Size) -> Reached:
    """Feed, train and look until the goal is measured or the rounds are done."""
    await learn(client, rows.exam, exam=True)
    goal = Goal("local_share", size.goal)
    fed, share, needs = 0, 0.0, ""
    for number in range(size.rounds):
        part = rows.pool[number * size.examples : (number + 1) * size.examples]
        fed += (await learn(client, part, exam=False)).queued
        await call_tool(client, "train", {"wait": True}, wait=True)
        told = await call_tool(
            client, "analyze_model", {"test_count": size.tests, "categories": list(rows.categories)}, wait=True
        )
        findings = read_findings(told)
        share, needs = measure(findings, rows.categories, goal), describe_exam_needs(list_exam_needs(findings))
        print(f"random: round {number + 1}, {fed} examples, certified local share {share:.2f}", flush=True)
        if share >= size.goal:
            return Reached(number + 1, fed, share, "goal")
    return Reached(size.rounds, fed, share, f"rounds; {needs}")


def price_teaching(rows: Rows, *, rounds: int, examples: int) -> tuple[Decimal, Decimal]:
    """Return the USD of the planner's conversation and of the teacher's examples."""
    return asyncio.run(price_planner(rounds)), price_examples(rows.pool[:examples])


async def price_planner(rounds: int) -> Decimal:
    """Drive the planner `claude` with the scripted teacher for so many rounds; usage is counted by the stub."""
    from support.messages_stub import count_tokens
    from support.school import Quiet, School, make_place
    from support.scripted_gateway import serve_scripted
    from support.scripted_teacher import ScriptedTeacher, plan_rounds, serve_teacher

    class CountingTeacher(ScriptedTeacher):
        def _message(self, request: dict[str, Any]) -> dict[str, Any]:
            message = super()._message(request)
            written = len(json.dumps(message["content"])) // CHARS_A_TOKEN
            message["usage"] |= {"input_tokens": count_tokens(request), "output_tokens": written}
            return message

    settings = TeachSettings(planner="claude", goal=Goal("local_share", 1.0), rounds=rounds)
    with tempfile.TemporaryDirectory() as folder:
        async with serve_scripted(School()) as school, serve_teacher(CountingTeacher(plan=plan_rounds(rounds))) as told:
            place = make_place(Path(folder), school, claude=Claude(key=told.key, base_url=told.url))
            report = await teach(place, settings, lambda _: Quiet())
    return Decimal(report["planner_usd"])


def price_examples(rows: Sequence[WorkloadRow]) -> Decimal:
    """Price wishes for these rows, the rows as the teacher's output, and a second answer to each."""
    offers = [OfferedExample(query=row.example.query_text, response=row.example.response) for row in rows]
    asked = written = 0
    for start in range(0, len(offers), MAX_DIRECT):
        part = offers[start : start + MAX_DIRECT]
        wish = Wish(category=rows[start].example.category, count=len(part), samples=tuple(part[:5]))
        asked += len(write_wish(wish))
        written += sum(len(json.dumps({"query": row.query, "response": row.response})) for row in part)
        # The second answers: the queries again, in groups with samples, and their responses.
        asked += sum(len(row.query) for row in part) + (len(part) // GROUP + 1) * sum(len(r.query) for r in part[:5])
        written += sum(len(row.response) for row in part)
    usage = Usage(input_tokens=asked // CHARS_A_TOKEN, output_tokens=written // CHARS_A_TOKEN)
    price = load_prices().price(MODEL, usage, datetime.now(UTC).date())
    assert price is not None, MODEL
    return price


def list_figures(taught: Reached, fed: Reached, usd: tuple[Decimal, Decimal], size: Size) -> list[Figure]:
    """Return the figures that the issue names; an arm that did not reach the goal says so."""
    where = (
        f"{len(FAMILIES)} families ({', '.join(FAMILIES)}), certified local share {size.goal:g}, alpha {size.alpha:g}"
    )
    note = f"{where}; reached {taught.share:.2f} ({taught.why})"
    beside = f"reached {fed.share:.2f} ({fed.why})"
    conversation, examples = usd
    return [
        Figure("teach_rounds_to_goal", taught.rounds, "rounds", note, "random order", float(fed.rounds)),
        Figure("teach_examples", taught.examples, "examples", note, "random order", float(fed.examples)),
        Figure("teach_examples_random", fed.examples, "examples", f"the same rows in random order; {beside}"),
        Figure(
            "teach_usd",
            float(conversation + examples),
            "USD",
            f"{MODEL}: conversation {conversation:.4f}, {taught.examples} examples with second answers {examples:.4f}; "
            "usage as the stub counts it (4 characters a token), no cache, no batch",
        ),
    ]


def main() -> None:
    """Run both arms and write their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes; writes nothing")
    parser.add_argument("--rounds", type=int, help=f"most rounds of an arm; {FULL.rounds} if not given")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    if options.rounds:
        size = Size(size.pool, size.exam, size.examples, options.rounds, size.goal, size.alpha, size.tests)
    pull_models()
    with tempfile.TemporaryDirectory(prefix="shammah-teach-") as folder:
        rows = write_rows(Path(folder), size)
        taught = run_teaching(rows, size)
        print(f"teach: {taught}", flush=True)
        fed = run_random(rows, size)
        print(f"random: {fed}", flush=True)
        usd = price_teaching(rows, rounds=taught.rounds, examples=taught.examples)
    figures = list_figures(taught, fed, usd, size)
    for figure in figures:
        print(f"{figure.id}: {figure.value:.4g} {figure.unit}\n  {figure.note}", flush=True)
    if not options.quick:
        write_figures(figures, command="python tests/bench/tools_teach.py")


if __name__ == "__main__":
    main()
