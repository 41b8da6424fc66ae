"""`ask` and `chat`: put a query to the cascade and show who answered.

Knows the Ask call and the feedback call, not how a route is chosen.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from rich.prompt import Prompt
from shammah.v1 import gateway_pb2, types_pb2
from shammah_chassis.errors import ShammahError

from shammah_gateway.cli.client import GatewayClient, run
from shammah_gateway.cli.console import as_dict, err, out, print_answer
from shammah_gateway.cli.paths import Connection

HELP = """/good            the last answer was good
/bad [ANSWER]    the last answer was bad; with the right answer it is learned
/tools           the five tools that Claude has
/new             start a new conversation
/quit            leave"""


@dataclass(frozen=True, slots=True)
class AskOptions:
    """What a caller may choose for one query."""

    local_only: bool = False
    allow_degraded: bool = False
    no_learn: bool = False
    release: str = ""
    max_tokens: int = 0
    temperature: float = 0.0
    alpha: float = 0.0


def make_request(turns: list[tuple[str, str]], options: AskOptions) -> gateway_pb2.AskRequest:
    """Build the request from (role, content) turns."""
    return gateway_pb2.AskRequest(
        messages=[types_pb2.Message(role=role, content=content) for role, content in turns],
        local_only=options.local_only,
        allow_degraded=options.allow_degraded,
        no_learn=options.no_learn,
        release=options.release,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        alpha=options.alpha,
    )


def describe(answer: gateway_pb2.AskResponse) -> str:
    """Say in one line who answered and why."""
    route = gateway_pb2.Route.Name(answer.route).removeprefix("ROUTE_").lower()
    by = answer.teacher_model if route == "teacher" else answer.versions.release
    return (
        f"{route} ({by or 'no release'}), reason {answer.reason}, category {answer.category or '-'}, "
        f"confidence {answer.confidence:.2f}, {answer.latency_seconds * 1000:.0f} ms, query {answer.query_id}"
    )


async def ask(client: GatewayClient, turns: list[tuple[str, str]], options: AskOptions) -> gateway_pb2.AskResponse:
    """Ask the gateway; raises the named error of the gateway."""
    answer = await client.call(client.stub.Ask, make_request(turns, options), timeout=660)
    assert isinstance(answer, gateway_pb2.AskResponse)
    return answer


def ask_once(connection: Connection, query: str, options: AskOptions, *, as_json: bool) -> None:
    """Ask one query and print the answer (standard output) and its origin (standard error)."""
    answer = run(connection, lambda client: ask(client, [("user", query)], options))
    if as_json:
        out.print_json(json.dumps(as_dict(answer)))
        return
    print_answer(answer.text)
    err.print(describe(answer), style="dim", markup=False)


@dataclass(slots=True)
class Chat:
    """A conversation at the terminal."""

    client: GatewayClient
    options: AskOptions
    turns: list[tuple[str, str]] = field(default_factory=list)
    last_query_id: str = ""

    async def handle(self, line: str) -> bool:
        """Take one line; returns False when the user leaves."""
        command, _, rest = line.strip().partition(" ")
        if command in ("/quit", "/exit"):
            return False
        if command == "/good":
            await self.rate(1, "")
        elif command == "/bad":
            await self.rate(-1, rest.strip())
        elif command == "/tools":
            self.show_tools()
        elif command == "/new":
            self.turns.clear()
        elif command.startswith("/"):
            out.print(HELP, markup=False)
        elif line.strip():
            await self.say(line.strip())
        return True

    async def say(self, text: str) -> None:
        """Ask with the whole conversation so far."""
        answer = await ask(self.client, [*self.turns, ("user", text)], self.options)
        self.turns += [("user", text), ("assistant", answer.text)]
        self.last_query_id = answer.query_id
        print_answer(answer.text)
        err.print(describe(answer), style="dim", markup=False)

    async def rate(self, rating: int, correction: str) -> None:
        """Rate the last answer."""
        if not self.last_query_id:
            out.print("nothing to rate yet")
            return
        request = gateway_pb2.SendFeedbackRequest(query_id=self.last_query_id, rating=rating, correction=correction)
        effect = await self.client.call(self.client.stub.SendFeedback, request, timeout=10)
        out.print(f"noted: {effect.effect}, weight {effect.weight:g}")

    def show_tools(self) -> None:
        """Print the five tools."""
        from shammah_gateway.tools.registry import TOOLS  # here: a chat starts without it

        for tool in TOOLS.values():
            out.print(f"{tool.name}: {tool.description}", markup=False)


def chat(connection: Connection, options: AskOptions) -> None:
    """Talk until end of file, Ctrl-C or /quit; a named error is shown and the chat goes on.

    The prompt waits outside the event loop, so Ctrl-C there leaves at once; while an answer is awaited it only gives
    that answer up.
    """
    with asyncio.Runner() as runner:
        client = runner.run(GatewayClient(connection).__aenter__())
        session = Chat(client=client, options=options)
        out.print("Type a query; /help lists the commands.")
        try:
            while (line := _read_line()) is not None:
                try:
                    if not runner.run(session.handle(line)):
                        return
                except ShammahError as error:
                    err.print(f"{error.code}: {error.message}", markup=False)
                except KeyboardInterrupt:
                    err.print("given up; /quit leaves")
        finally:
            runner.run(client.__aexit__(None, None, None))


def _read_line() -> str | None:
    """Read a line at the prompt; None at the end of file or Ctrl-C."""
    try:
        return Prompt.ask("you")
    except (EOFError, KeyboardInterrupt):
        out.print()
        return None
