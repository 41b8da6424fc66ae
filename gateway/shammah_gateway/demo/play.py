"""The demo: the active-learning loop on this machine, told as it goes.

It writes its own workload, starts every part in a folder of its own with the recorded teacher, lets the student
learn where the analysis expects the most, and measures on separate rows that nothing was trained or certified on.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table
from shammah_chassis.errors import ShammahError
from shammah_chassis.workload import WorkloadRow, read_workload

from shammah_gateway.cli import local
from shammah_gateway.cli.client import GatewayClient
from shammah_gateway.cli.console import err, missing, out, percent
from shammah_gateway.cli.evaluate import Asked, ask_all
from shammah_gateway.cli.learn import learn
from shammah_gateway.cli.manage import call_tool, list_releases
from shammah_gateway.cli.paths import find_connection
from shammah_gateway.demo.scorecard import CategoryScore, verdict
from shammah_gateway.demo.traffic import Traffic, trickle
from shammah_gateway.demo.workload import CATEGORIES, DemoFiles, write_workload

ALPHA = 0.1
BEFORE_ROWS = 30
FIRST_EXAM_ROWS = 80
BEFORE_TOKENS = 24
FIRST_ROWS = 45
MOST_ROWS = 90
FLOOR_SHARE = 0.6
# A user every two seconds: enough to see a failed request, not so many that training waits for them.
PAUSE_SECONDS = 2.0
SETTINGS = (
    f"SHAMMAH_TRAINER_ALPHA={ALPHA}",
    "SHAMMAH_TRAINER_AUTO_TRAIN=false",
    # On two cores the upper third learns as well in half the time (DESIGN.md, 2026-11-22).
    "SHAMMAH_TRAINER_SFT_UPPER_LAYERS=10",
    "SHAMMAH_TRAINER_SFT_LEARNING_RATE=3e-4",
    "SHAMMAH_TRAINER_SFT_EPOCHS=2",
    "SHAMMAH_GATEWAY_AUDIT_RATE=0",
    "SHAMMAH_GATEWAY_EXPLORE_RATE=0",
    "SHAMMAH_GATEWAY_ROLE_TIMEOUT_SECONDS=30",
    # The base model rambles: a few of its answers are enough to compare with.
    "SHAMMAH_TRAINER_BASE_ROWS=15",
    "SHAMMAH_TRAINER_VALIDATOR_SECONDS=15",
    "SHAMMAH_TRAINER_ROLLOUT_SLOTS=16",
)


@dataclass(slots=True)
class Story:
    """What the demo has seen so far."""

    files: DemoFiles
    check: Sequence[WorkloadRow]
    traffic: Traffic = field(default_factory=Traffic)
    taught: int = 0
    training_seconds: float = 0.0
    swap_seconds: float = 0.0
    served_in_swap: int = 0
    before: list[Asked] = field(default_factory=list)
    after: list[Asked] = field(default_factory=list)


class Clock:
    """Seconds since the start, shown before each line."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line of the story."""
        err.print(f"[dim]{time.monotonic() - self._begun:5.0f} s[/dim]  {text}")


async def teach(client: GatewayClient, category: str, count: int) -> int:
    """Let the recorded teacher make up to `count` examples of a category; returns how many were queued."""
    queued = 0
    while count >= 10:
        step = min(100, count)
        arguments = {"category": category, "count": step, "difficulty": "medium"}
        try:
            queued += int((await call_tool(client, "generate_training_data", arguments, wait=True))["queued"])
        except ShammahError as error:
            err.print(f"       {category}: {error.message}", markup=False)
            break
        count -= step
    return queued


async def run_round(client: GatewayClient, story: Story, clock: Clock) -> dict[str, Any]:
    """Train, certify and swap while users go on asking; returns the tool's result."""
    stop = asyncio.Event()
    queries = [row.example.query_text for row in story.check]
    users = asyncio.create_task(trickle(client, queries, story.traffic, stop=stop, pause_seconds=PAUSE_SECONDS))
    try:
        result = await call_tool(client, "train", {"wait": True}, wait=True)
        if result["verdict"] == "promote" or result["verdict"] == "promoted":
            result = await wait_for_swap(client, result)
    finally:
        stop.set()
        await users
    story.training_seconds += float(result["duration_seconds"])
    swapped = float(result["swapped_at"])
    if swapped:
        made = {release.id: release.created_at for release in await list_releases(client)}[str(result["release"])]
        story.swap_seconds = swapped - made
        story.served_in_swap += story.traffic.served_between(made, swapped + 2)
    clock.say(f"verdict: {result['verdict']}, release {result['release'] or '-'}; {'; '.join(result['reasons'])}")
    for row in result["exam"]:
        state = "certified" if row["certified"] else f"not certified, {missing(row['rows_missing'])}"
        clock.say(
            f"  exam {row['category']}: accuracy {percent(row['before'])} -> {percent(row['after'])} "
            f"on {row['rows']} rows, {state}, local share {percent(row['local_share_after'])}"
        )
    return result


async def wait_for_swap(client: GatewayClient, result: dict[str, Any]) -> dict[str, Any]:
    """Poll the finished round until the release it promoted serves (at most 60 s)."""
    limit = time.monotonic() + 60
    while not float(result["swapped_at"]) and time.monotonic() < limit:
        await asyncio.sleep(0.2)
        result = await call_tool(client, "train", {"job": result["job"]["id"]}, wait=False)
    return result


async def analyse(client: GatewayClient, clock: Clock) -> dict[str, Any]:
    """Run the analysis tool and print what it says."""
    found = await call_tool(client, "analyze_model", {"test_count": 75}, wait=True)
    for row in found["categories"]:
        clock.say(
            f"  {row['category']}: accuracy {percent(row['accuracy'])} "
            f"({percent(row['accuracy_low'])} to {percent(row['accuracy_high'])}, {row['tested']} rows), "
            f"expected gain {100 * row['expected_gain']:.1f} points per 100 examples"
        )
    return found


def choose(analysis: dict[str, Any]) -> list[str]:
    """Return the categories worth teaching: expected gain at least 60 % of the best one."""
    gains = {row["category"]: float(row["expected_gain"]) for row in analysis["categories"]}
    best = max(gains.values(), default=0.0)
    return [name for name in analysis["weak_areas"] if best > 0 and gains[name] >= FLOOR_SHARE * best]


async def tell(client: GatewayClient, story: Story, clock: Clock) -> None:
    """Play the loop: measure, seed, train, analyse, teach where it pays, train, measure."""
    clock.say("before: the untrained student on a sample of the separate rows")
    sample = [row for name in CATEGORIES for row in rows_of(story.check, name)[:BEFORE_ROWS]]
    story.before = await ask_all(client, sample, max_tokens=BEFORE_TOKENS)
    exam = read_workload(story.files.exam).rows
    first = [row for name in CATEGORIES for row in rows_of(exam, name)[:FIRST_EXAM_ROWS]]
    report = await learn(client, first, exam=True)
    clock.say(f"{report.queued} exam rows are on the stream; they are never trained on")
    clock.say(f"nothing is known yet: {FIRST_ROWS} examples of each category")
    for name in CATEGORIES:
        story.taught += await teach(client, name, FIRST_ROWS)
    await run_round(client, story, clock)
    clock.say("analysis of what it can do now")
    chosen = choose(await analyse(client, clock))
    clock.say(f"teaching where the expected gain is highest: {', '.join(chosen) or 'nowhere'}")
    more = [await teach(client, name, MOST_ROWS) for name in chosen]
    story.taught += sum(more)
    rest = [row for name in CATEGORIES for row in rows_of(exam, name)[FIRST_EXAM_ROWS:]]
    report = await learn(client, rest, exam=True)
    clock.say(f"{report.queued} further exam rows")
    if sum(more):
        await run_round(client, story, clock)
        await analyse(client, clock)
    clock.say("after: every separate row through the cascade")
    story.after = await ask_all(client, story.check)


def rows_of(rows: Sequence[WorkloadRow], category: str) -> list[WorkloadRow]:
    """Return the rows of one category."""
    return [row for row in rows if row.example.category == category]


def score(story: Story) -> dict[str, CategoryScore]:
    """Turn the two measurements into one score a category."""
    scores = {}
    for name in CATEGORIES:
        before = [item for item in story.before if item.row.example.category == name]
        after = [item for item in story.after if item.row.example.category == name]
        local_rows = [item for item in after if item.local]
        scores[name] = CategoryScore(
            name=name,
            before_rows=len(before),
            before=sum(bool(item.student_good) for item in before) / max(1, len(before)),
            rows=len(after),
            after=sum(bool(item.student_good) for item in after) / max(1, len(after)),
            local=len(local_rows),
            local_bad=sum(not item.whole_good for item in local_rows),
        )
    return scores


def local_share(asked: Sequence[Asked], category: str) -> float:
    """Return the share of a category's rows that was answered locally."""
    rows = [item.local for item in asked if item.row.example.category == category]
    return sum(rows) / max(1, len(rows))


def show(story: Story, scores: dict[str, CategoryScore], seconds: float) -> None:
    """Print the table and the figures at the end."""
    table = Table("category", "accuracy before", "accuracy after", "local share before", "after", "bad of local")
    for row in scores.values():
        table.add_row(
            row.name,
            f"{percent(row.before)} of {row.before_rows}",
            f"{percent(row.after)} of {row.rows}",
            percent(local_share(story.before, row.name)),
            percent(row.local_share),
            f"{row.local_bad} of {row.local}",
        )
    out.print(table)
    local_rows = sum(row.local for row in scores.values())
    bad = sum(row.local_bad for row in scores.values())
    out.print(
        f"promise: at most {percent(ALPHA)} bad local answers in a category, shown by an exam (alpha = {ALPHA}); "
        f"on the separate rows {bad} of {local_rows} were bad"
    )
    out.print(f"examples used {story.taught}; rounds {story.training_seconds:.0f} s")
    out.print(f"swap: {story.swap_seconds:.2f} s from the release being made to serving (publish, load, warm, switch)")
    out.print(
        f"requests during the rounds: {len(story.traffic.served)} served, {len(story.traffic.failed)} failed; "
        f"around the swaps {story.served_in_swap} served"
    )
    out.print(f"teacher calls saved on the separate rows: {local_rows} of {sum(row.rows for row in scores.values())}")
    out.print(f"whole demo: {seconds:.0f} s")


def play(*, keep: bool, seed: int) -> int:
    """Play the demo in a folder of its own; returns the exit code."""
    begun = time.monotonic()
    clock = Clock()
    folder = Path(tempfile.mkdtemp(prefix="shammah-demo-"))
    try:
        clock.say("base models")
        if subprocess.run([sys.executable, "-m", "shammah_trainer.pull"], check=False).returncode:
            return 1
        files = write_workload(folder / "workload", seed=seed)
        story = Story(files=files, check=read_workload(files.check).rows)
        recorded = f"SHAMMAH_GATEWAY_RECORDED_FILES={files.teacher}"
        settings = [*SETTINGS, "SHAMMAH_GATEWAY_TEACHER=recorded", recorded]
        clock.say("starting every part")
        if local.start(folder, detach=True, settings=settings):
            return 1
        asyncio.run(perform(folder, story, clock))
        scores = score(story)
        show(story, scores, time.monotonic() - begun)
        reasons = verdict(scores, alpha=ALPHA, failed=len(story.traffic.failed))
        for reason in reasons:
            err.print(f"[red]not shown:[/red] {reason}")
        return 1 if reasons else 0
    except ShammahError as error:
        err.print(f"{error.code}: {error.message}", markup=False)
        return 1
    finally:
        if keep:
            err.print(f"left running; stop it with: shammah --data-dir {folder} down", markup=False)
        else:
            local.stop(folder)
            shutil.rmtree(folder, ignore_errors=True)


async def perform(folder: Path, story: Story, clock: Clock) -> None:
    """Open the client and tell the story."""
    async with GatewayClient(find_connection(folder)) as client:
        await tell(client, story, clock)
