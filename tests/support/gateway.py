"""Parts of the gateway for unit tests: scripted roles in the place of the transport, and collecting sinks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shammah_chassis.errors import ShammahError, UnknownReleaseError
from shammah_chassis.examples import Example, Message
from shammah_chassis.releases import CategoryPolicy, Release
from shammah_chassis.ulid import new_ulid
from shammah_gateway.cascade import Cascade
from shammah_gateway.coins import Coins
from shammah_gateway.learning import Learner
from shammah_gateway.money.caps import AtCap, Caps
from shammah_gateway.money.ledger import Ledger
from shammah_gateway.money.prices import load_prices
from shammah_gateway.money.store import LedgerFile
from shammah_gateway.money.usage import Usage
from shammah_gateway.monitor import Monitor
from shammah_gateway.ports import Recorded
from shammah_gateway.promise.watch import PromiseWatch
from shammah_gateway.student import Student
from shammah_gateway.teachers.base import Generation, Teacher, TeacherAnswer, Wish
from shammah_gateway.values import Compared, Generated, Judged, Query, Routed

STATISTICS = {"sum_logprob": -1.0, "length": 2.0}


def make_release(**changes: Any) -> Release:
    """A release with one certified and one uncertified category."""
    release = Release(
        id=new_ulid(),
        parent="",
        created_at=1.0,
        router="r1",
        generator="g1",
        validator="v1",
        verdict="promote",
        categories={
            "capitals": CategoryPolicy(threshold=0.8, rows=100, accuracy=0.9, max_new_tokens=16),
            "poems": CategoryPolicy(threshold=None, rows=10, rows_missing=49, accuracy=0.2),
        },
        prefilter=0.3,
    )
    return replace(release, **changes)


@dataclass
class ScriptedRoles:
    """Roles whose replies are fields; `errors` maps a method to what it raises."""

    routed: Routed = field(default_factory=lambda: Routed(0.9, "capitals", 0.95, False, "r1"))
    generated: Generated = field(default_factory=lambda: Generated("Paris", "stop", STATISTICS, "g1"))
    judged: Judged = field(default_factory=lambda: Judged(0.9, 0.2, 0.9, 0.9, 0.1, "low", False, "v1"))
    compared: Compared = field(default_factory=lambda: Compared(0.9, 0.95, 0.99, True, 0.99, "v1"))
    errors: dict[str, ShammahError] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    # A generator that never answers.
    hangs: bool = False

    def _note(self, method: str, detail: Any) -> None:
        self.calls.append((method, detail))
        if method in self.errors:
            raise self.errors[method]

    async def route(self, release: str, query: str, *, timeout: float) -> Routed:
        self._note("route", {"release": release, "query": query, "timeout": timeout})
        return self.routed

    async def generate(
        self, release: str, messages: Sequence[Message], *, max_tokens: int, temperature: float, timeout: float
    ) -> Generated:
        self._note("generate", {"release": release, "max_tokens": max_tokens, "temperature": temperature})
        if self.hangs:
            await asyncio.Event().wait()
        return self.generated

    async def validate(
        self,
        release: str,
        query: str,
        response: str,
        *,
        category: str,
        statistics: Mapping[str, float] | None,
        timeout: float,
    ) -> Judged:
        self._note("validate", {"release": release, "response": response, "statistics": statistics})
        return self.judged

    async def compare(
        self,
        release: str,
        query: str,
        response_a: str,
        response_b: str,
        *,
        category: str,
        statistics_a: Mapping[str, float] | None,
        timeout: float,
    ) -> Compared:
        self._note("compare", {"a": response_a, "b": response_b})
        return self.compared


@dataclass
class OneRelease:
    """A champion that never changes, and other releases by id."""

    current: Release | None
    others: dict[str, Release] = field(default_factory=dict)

    def champion(self) -> Release | None:
        return self.current

    async def find(self, release: str) -> Release:
        if self.current is not None and release == self.current.id:
            return self.current
        if release in self.others:
            return self.others[release]
        raise UnknownReleaseError(f"release {release!r} is not known")


@dataclass
class Sink:
    """Keeps what is recorded; `error` is raised instead."""

    examples: list[Example] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    error: Exception | None = None

    async def record(self, source: str, examples: Sequence[Example]) -> Recorded:
        if self.error is not None:
            raise self.error
        self.sources.append(source)
        self.examples.extend(examples)
        return Recorded(len(examples), False)


@dataclass
class PlainTeacher:
    """A teacher that says one thing, or raises."""

    text: str = "Paris"
    error: ShammahError | None = None
    asked: list[tuple[Sequence[Message], int]] = field(default_factory=list)
    name: str = "plain"
    models: tuple[str, ...] = ("claude-sonnet-5-5",)
    passed_over: tuple[tuple[str, str], ...] = ()

    async def answer(self, messages: Sequence[Message], max_tokens: int) -> TeacherAnswer:
        self.asked.append((messages, max_tokens))
        if self.error is not None:
            raise self.error
        usage = Usage(input_tokens=10, output_tokens=2)
        return TeacherAnswer(self.text, "plain-1", "end_turn", usage, passed_over=self.passed_over)

    async def generate(self, wish: Wish) -> Generation:
        raise NotImplementedError

    def categories(self) -> None:
        return None


def make_ledger(path: Path | None = None, *, baseline: str = "claude-sonnet-5-5", **caps: Any) -> Ledger:
    """A ledger with the shipped prices; in memory without a path."""
    return Ledger(LedgerFile(path) if path else None, load_prices(), Caps(**caps), baseline=baseline)


class Bench:
    """A cascade with scripted roles, one release, a plain teacher and a collecting sink."""

    def __init__(
        self,
        *,
        release: Release | None = None,
        no_release: bool = False,
        teacher: PlainTeacher | None = None,
        no_teacher: bool = False,
        audit_rate: float = 0.0,
        explore_rate: float = 0.0,
        max_calls: int | None = None,
        at_cap: AtCap = "refuse",
        watch: PromiseWatch | None = None,
    ) -> None:
        self.roles = ScriptedRoles()
        self.release = None if no_release else release or make_release()
        self.releases = OneRelease(self.release)
        self.port = teacher or PlainTeacher()
        self.teacher = None if no_teacher else Teacher(self.port, make_ledger(calls_total=max_calls))
        self.sink = Sink()
        self.monitor = Monitor()
        self.student = Student(self.roles, role_timeout_seconds=2.0, watch=watch)
        self.learner = Learner(
            student=self.student,
            teacher=self.teacher,
            sink=self.sink,
            coins=Coins(b"secret", audit_rate, explore_rate),
            monitor=self.monitor,
            watch=watch,
        )
        self.cascade = Cascade(
            student=self.student,
            releases=self.releases,
            teacher=self.teacher,
            learner=self.learner,
            at_cap=at_cap,
        )


def ask(text: str = "What is the capital of France?", **changes: Any) -> Query:
    """A query of one user turn."""
    return Query(**{"messages": (Message("user", text),), "user": "owner", "may_audit": True, **changes})
