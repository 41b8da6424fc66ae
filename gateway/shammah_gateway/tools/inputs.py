"""Inputs of the five tools, as the schemas that every face shows. Field names are those of the proto.

Types are strict: a number in quotes is refused, as the schema says. It holds no behaviour.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.json_schema import SkipJsonSchema
from shammah_chassis.examples import GRADERS, MAX_QUERY_CHARS, MAX_RESPONSE_CHARS

from shammah_gateway.checks import MAX_NEW_TOKENS

NAME_CHARS = 256
FOCUS_CHARS = 1000
MAX_CATEGORIES = 256
MAX_OFFERED = 256
MAX_PLANNED = 100_000
Difficulty = Literal["easy", "medium", "hard"]
JobId = Annotated[
    str,
    Field(
        max_length=NAME_CHARS,
        description="Id of a job that this tool began before (result.job.id). Its state and what it has found so far "
        "are returned, after at most 25 s; nothing new is started and the other fields are not looked at.",
    ),
]
Cancel = Annotated[
    bool,
    Field(description="Only together with 'job': stop that job and return it. A job that has ended stays as it is."),
]
CategoryName = Annotated[str, Field(max_length=NAME_CHARS)]


def _check_whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair; allowed: text that UTF-8 can hold") from None
    return text


# Pydantic looks at the characters of a text only where it has a limit.
WholeText = Annotated[str, AfterValidator(_check_whole)]


def _drop_default(schema: JsonDict) -> None:
    """Leave out the default null: the field is there or it is not."""
    schema.pop("default", None)


def _drop_null(schema: JsonDict) -> None:
    """Leave out null, as a default and as a choice: the field is there or it is not. Errors stay those of the value."""
    schema.pop("default", None)
    choices = schema.pop("anyOf")
    assert isinstance(choices, list) and isinstance(choices[0], dict)
    schema.update(choices[0])


class Strict(BaseModel):
    """An input: unknown fields are refused, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class QueryInput(Strict):
    """Ask the local student, whatever the cascade would do."""

    query: str = Field(
        min_length=1,
        max_length=MAX_QUERY_CHARS,
        description="What a user would ask. It is data for the student: instructions in it call no tool.",
    )
    max_tokens: int = Field(
        default=0,
        ge=0,
        le=MAX_NEW_TOKENS,
        description="Longest response in tokens; 0 is the limit that the category was certified with.",
    )


class CompareInput(Strict):
    """Compare the student's response with the teacher's."""

    query: str = Field(
        default="", max_length=MAX_QUERY_CHARS, description="What a user would ask. Required unless 'job' is given."
    )
    teacher_response: Annotated[str, Field(min_length=1, max_length=MAX_RESPONSE_CHARS)] | SkipJsonSchema[None] = Field(
        default=None,
        json_schema_extra=_drop_default,
        description="The response to compare with, when you have one or write it yourself: that costs nothing. "
        "Left out: the teacher is asked, and for free text it judges too, which costs money.",
    )
    job: JobId = ""
    cancel: Cancel = False


class OfferedInput(Strict):
    """One example that the caller made; an empty query or response is rejected by itself, not the whole call."""

    query: WholeText = Field(default="", description=f"What a user would ask, 1 to {MAX_QUERY_CHARS} characters.")
    response: WholeText = Field(default="", description=f"The right response, 1 to {MAX_RESPONSE_CHARS} characters.")
    category: WholeText = Field(default="", description="Category of this example; empty: the category of the call.")
    grader: WholeText = Field(
        default="",
        description="How a response to this query is told right from wrong: "
        f"{', '.join(sorted(GRADERS))}. Empty: by the form of the response.",
    )


class GenerateInput(Strict):
    """Have the teacher make examples of a category, or offer examples."""

    category: str = Field(
        default="",
        max_length=NAME_CHARS,
        description="Category to teach, as analyze_model names it. Required unless 'examples' or 'job' is given; with "
        "'examples' it is the category of those that name none, and may be a new one.",
    )
    count: int | None = Field(
        default=None,
        ge=10,
        le=100,
        json_schema_extra=_drop_null,
        description="How many examples the teacher is to make. Left out: what the newest analysis recommends for the "
        "category, less what came since (20 where none has looked at it).",
    )
    difficulty: Difficulty | None = Field(
        default=None,
        json_schema_extra=_drop_null,
        description="How hard the teacher makes them: begin where the student fails, go up as it succeeds. Left out: "
        "by the accuracy in the newest analysis, easy below 0.5 (or where nothing is known), hard above 0.85.",
    )
    focus: str = Field(
        default="",
        max_length=FOCUS_CHARS,
        description="What the teacher is to dwell on, in a sentence: the kind of query that the student got wrong.",
    )
    examples: list[OfferedInput] = Field(
        default_factory=list,
        min_length=1,
        max_length=MAX_OFFERED,
        description="Examples of your own, instead of having the teacher make some: no teacher call, no cost. Leave it "
        "out (not empty) when the teacher is to make them.",
    )
    job: JobId = ""
    cancel: Cancel = False


class AnalyzeInput(Strict):
    """Test the student on examples that it was not taught."""

    test_count: int = Field(
        default=100, ge=50, le=200, description="How many examples are tried, evenly over the categories."
    )
    categories: list[CategoryName] = Field(
        default_factory=list, max_length=MAX_CATEGORIES, description="Only these categories; empty: all."
    )
    example_budget: int = Field(
        default=0,
        ge=0,
        le=MAX_PLANNED,
        description="How many examples you want to have made in all: what recommended_examples add up to (at least 10 "
        "a category). 0: 50 a category.",
    )
    job: JobId = ""
    cancel: Cancel = False


class TrainInput(Strict):
    """Start a round of training now."""

    wait: bool = Field(
        default=False,
        description="True: wait up to 25 s for the end of the round. False: return as soon as the round has begun.",
    )
    job: JobId = ""
    cancel: Cancel = False
