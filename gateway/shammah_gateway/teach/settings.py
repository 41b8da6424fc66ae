"""What a teaching session is asked for: goal, limits, categories, planner. It knows no gateway and no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, cast, get_args

from shammah_chassis.errors import InvalidInputError

Measure = Literal["local_share", "accuracy"]
Planner = Literal["rules", "claude"]
MODEL = "claude-sonnet-5-5"
MOST_ROUNDS = 100
# Bounds of `test_count` of the tool analyze_model, and how many rows of a category tell enough.
LEAST_TESTS, MOST_TESTS, TESTS_EACH = 50, 200, 25


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached: a share from 0 to 1, as the mean over the categories of the session."""

    measure: Measure = "local_share"
    value: float = 0.9

    def __str__(self) -> str:
        return f"{self.measure}={self.value:g}"


def parse_goal(text: str) -> Goal:
    """Read `local_share=0.9` or `accuracy=0.8`.

    Raises:
        InvalidInputError: another name, or a value that is not above 0 and at most 1.
    """
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if name not in get_args(Measure) or not 0.0 < number <= 1.0:
        raise InvalidInputError(f"goal {text!r}; allowed: local_share=X or accuracy=X with X above 0 and at most 1")
    return Goal(cast("Measure", name), number)


def parse_budget(text: str) -> Decimal:
    """Read an amount of USD; InvalidInputError when it is no number, negative or not finite."""
    try:
        amount = Decimal(text)
    except InvalidOperation as error:
        raise InvalidInputError(f"budget {text!r} is no number of USD") from error
    if not amount.is_finite() or amount < 0:
        raise InvalidInputError(f"budget {text!r}; allowed: 0 or more USD")
    return amount


@dataclass(frozen=True, slots=True)
class Probe:
    """A query that is asked after each round to see how its category answers; it teaches nothing.

    Without a reference the teacher is asked for one.
    """

    category: str
    query: str
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeachSettings:
    """A session. `categories` empty: all that are known; `budget_usd` None: no limit of its own.

    `examples` are the examples of one round over all categories (0: 50 for each that is taught), `floor` the least
    for each (the tool takes 10 at least), `tests` the rows of an analysis (0: 25 a category).
    """

    goal: Goal = Goal()
    rounds: int = 5
    budget_usd: Decimal | None = None
    categories: tuple[str, ...] = ()
    planner: Planner = "rules"
    model: str = MODEL
    examples: int = 0
    floor: int = 10
    tests: int = 0
    probes: tuple[Probe, ...] = ()

    def __post_init__(self) -> None:
        _check(1 <= self.rounds <= MOST_ROUNDS, f"rounds {self.rounds}; allowed: 1 to {MOST_ROUNDS}")
        _check(self.planner in get_args(Planner), f"planner {self.planner!r}; allowed: rules, claude")
        _check(bool(self.model), "model is empty")
        _check(len(set(self.categories)) == len(self.categories), "a category is named twice")
        _check(all(name.strip() for name in self.categories), "a category is empty")
        _check(self.examples == 0 or self.examples >= 10, f"examples {self.examples}; allowed: 0, or 10 and more")
        _check(10 <= self.floor <= 100, f"floor {self.floor}; allowed: 10 to 100")
        allowed = self.tests == 0 or LEAST_TESTS <= self.tests <= MOST_TESTS
        _check(allowed, f"tests {self.tests}; allowed: 0, or {LEAST_TESTS} to {MOST_TESTS}")

    def count_tests(self, categories: int) -> int:
        """Return how many rows an analysis of so many categories tests."""
        return self.tests or min(MOST_TESTS, max(LEAST_TESTS, TESTS_EACH * categories))

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the journal."""
        return {
            "goal": str(self.goal),
            "rounds": self.rounds,
            "budget_usd": None if self.budget_usd is None else str(self.budget_usd),
            "categories": list(self.categories),
            "planner": self.planner,
            "model": self.model,
            "examples": self.examples,
            "floor": self.floor,
            "tests": self.tests,
            "probes": [[probe.category, probe.query, probe.reference] for probe in self.probes],
        }


def read_settings(raw: Mapping[str, Any]) -> TeachSettings:
    """Read what `to_json` wrote.

    Raises:
        InvalidInputError: a field is unknown or has another form.
    """
    known = {entry.name for entry in fields(TeachSettings)}
    if unknown := sorted(set(raw) - known):
        raise InvalidInputError(f"unknown setting {unknown[0]!r} of a session; known: {', '.join(sorted(known))}")
    try:
        values = dict(raw)
        values["goal"] = parse_goal(str(raw["goal"]))
        values["budget_usd"] = None if raw["budget_usd"] is None else parse_budget(str(raw["budget_usd"]))
        values["categories"] = tuple(raw["categories"])
        values["probes"] = tuple(Probe(*probe) for probe in raw["probes"])
        return TeachSettings(**values)
    except (KeyError, TypeError) as error:
        raise InvalidInputError(f"the settings of the session can't be read: {error}") from error


def change_settings(settings: TeachSettings, **given: Any) -> TeachSettings:  # noqa: ANN401 - one type a field
    """Return the settings with what was given (not None) on resume.

    Raises:
        InvalidInputError: planner or model change: a conversation belongs to its model.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    for name in ("planner", "model"):
        if name in wanted and wanted[name] != getattr(settings, name):
            raise InvalidInputError(f"the session was begun with {name} {getattr(settings, name)!r}; start a new one")
    return replace(settings, **wanted)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise InvalidInputError(message)
