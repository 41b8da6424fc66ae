"""The demo: the active-learning loop on this machine, told as it goes.

It writes its own workload, starts every part in a folder of its own with the recorded teacher, runs a teaching session
(`shammah teach` with the offline planner: one round, further exam rows, resumed for a second round), and measures on
separate rows that nothing was trained or certified on.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.table import Table
from shammah_chassis.errors import PreconditionError, ShammahError
from shammah_chassis.workload import WorkloadRow, read_workload

from shammah_gateway.cli import local
from shammah_gateway.cli.client import GatewayClient
from shammah_gateway.cli.console import err, missing, out, percent
from shammah_gateway.cli.evaluate import Asked, ask_all
from shammah_gateway.cli.learn import learn
from shammah_gateway.cli.manage import list_releases
from shammah_gateway.cli.paths import find_connection
from shammah_gateway.demo.scorecard import CategoryScore, verdict
from shammah_gateway.demo.traffic import Traffic, trickle
from shammah_gateway.demo.workload import CATEGORIES, DemoFiles, write_workload
from shammah_gateway.teach.display import Display
from shammah_gateway.teach.ending import BAD
from shammah_gateway.teach.run import Place, resume, teach
from shammah_gateway.teach.session import Outcome
from shammah_gateway.teach.settings import Goal, Probe, TeachSettings

ALPHA = 0.1
BEFORE_ROWS = 30
FIRST_EXAM_ROWS = 80
BEFORE_TOKENS = 24
FIRST_ROWS = 45
# Of the second round, over all categories: most go where the expected gain is.
MORE_ROWS = 200
TESTS = 75
# Separate rows of the worst categories that are looked at after a round.
PROBES = 2
GOAL = 0.9
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


class DemoDisplay(Display):
    """Shows the teaching session, and lets users go on asking while a round is trained."""

    def __init__(self, settings: TeachSettings, client: GatewayClient, story: Story, clock: Clock) -> None:
        super().__init__(err, settings)
        self._client = client
        self._story = story
        self._clock = clock
        self._stop = asyncio.Event()
        self.users: list[asyncio.Task[None]] = []

    def begin(self, step: int, tool: str, arguments: Mapping[str, Any]) -> None:
        """Show a step; at a round the users come."""
        super().begin(step, tool, arguments)
        if tool == "train":
            queries = [row.example.query_text for row in self._story.check]
            self._stop = asyncio.Event()
            users = trickle(self._client, queries, self._story.traffic, stop=self._stop, pause_seconds=PAUSE_SECONDS)
            self.users.append(asyncio.create_task(users))

    def end(self, outcome: Outcome, tool: str, *, cost: Decimal, replayed: bool) -> None:
        """Show what came of a step; after a round the users leave."""
        super().end(outcome, tool, cost=cost, replayed=replayed)
        if tool == "train" and not replayed:
            self._stop.set()
            for row in outcome.value.get("exam", []):
                state = "certified" if row["certified"] else f"not certified, {missing(row['rows_missing'])}"
                self._clock.say(
                    f"  exam {row['category']}: accuracy {percent(row['before'])} -> {percent(row['after'])} "
                    f"on {row['rows']} rows, {state}, local share {percent(row['local_share_after'])}"
                )


async def run_session(
    folder: Path, client: GatewayClient, story: Story, clock: Clock, *, session: str = "", rounds: int
) -> dict[str, Any]:
    """Begin the teaching session, or go on with it, for so many rounds in all; returns its report.

    Raises:
        PreconditionError: it ended before it had trained them.
    """
    place = Place(root=folder / "teach", find=lambda: find_connection(folder))
    shown: list[DemoDisplay] = []

    def watch(settings: TeachSettings) -> DemoDisplay:
        shown.append(DemoDisplay(settings, client, story, clock))
        return shown[0]

    try:
        if session:
            report = await resume(place, session, watch, rounds=rounds, examples=MORE_ROWS)
        else:
            report = await teach(place, plan_session(story, rounds), watch)
    finally:
        for display in shown:
            display.stop()
            await asyncio.gather(*display.users)
    clock.say(f"session {report['session']}: {report['state']}: {report['reason']}")
    if report["state"] in BAD:
        raise PreconditionError(f"the teaching session ended: {report['reason']}")
    return report


def plan_session(story: Story, rounds: int) -> TeachSettings:
    """Return the settings of the session: the offline planner over all five, with queries to look at."""
    probes = tuple(
        Probe(name, row.example.query_text, row.example.response)
        for name in CATEGORIES
        for row in rows_of(story.check, name)[:PROBES]
    )
    return TeachSettings(
        goal=Goal("local_share", GOAL),
        rounds=rounds,
        categories=CATEGORIES,
        examples=FIRST_ROWS * len(CATEGORIES),
        tests=TESTS,
        probes=probes,
    )


async def count_rounds(client: GatewayClient, story: Story, report: dict[str, Any]) -> None:
    """Read off the report how long the rounds and their swaps took."""
    made = {release.id: release.created_at for release in await list_releases(client)}
    for step in report["steps"]:
        if step["tool"] == "train" and "value" in step:
            result = step["value"]
            story.training_seconds += float(result["duration_seconds"])
            swapped = float(result["swapped_at"])
            if swapped and result["release"] in made:
                begun = made[result["release"]]
                story.swap_seconds = swapped - begun
                story.served_in_swap += story.traffic.served_between(begun, swapped + 2)


async def tell(folder: Path, client: GatewayClient, story: Story, clock: Clock) -> None:
    """Play the loop: measure, teach a round, more exam rows, teach where it pays, measure."""
    clock.say("before: the untrained student on a sample of the separate rows")
    sample = [row for name in CATEGORIES for row in rows_of(story.check, name)[:BEFORE_ROWS]]
    story.before = await ask_all(client, sample, max_tokens=BEFORE_TOKENS)
    exam = read_workload(story.files.exam).rows
    first = [row for name in CATEGORIES for row in rows_of(exam, name)[:FIRST_EXAM_ROWS]]
    queued = (await learn(client, first, exam=True)).queued
    clock.say(f"{queued} exam rows are on the stream; they are never trained on")
    clock.say("shammah teach: nothing is known yet, so the first round is even")
    report = await run_session(folder, client, story, clock, rounds=1)
    rest = [row for name in CATEGORIES for row in rows_of(exam, name)[FIRST_EXAM_ROWS:]]
    queued = (await learn(client, rest, exam=True)).queued
    clock.say(f"{queued} further exam rows; shammah teach --resume {report['session']} --rounds 2")
    report = await run_session(folder, client, story, clock, session=report["session"], rounds=2)
    story.taught = int(report["examples"])
    await count_rounds(client, story, report)
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
        await tell(folder, client, story, clock)
