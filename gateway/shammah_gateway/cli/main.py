"""`shammah`: the commands and their arguments, nothing else.

Each command reads its arguments and calls the file that does the work.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress
from shammah.v1 import gateway_pb2
from shammah_chassis.errors import InvalidInputError, UnavailableError

from shammah_gateway.cli import ask as asking
from shammah_gateway.cli import evaluate, learn, local, manage
from shammah_gateway.cli import mcp as claude_tools
from shammah_gateway.cli import offline as offline_learning
from shammah_gateway.cli.client import run
from shammah_gateway.cli.consent_commands import add_commands as add_consent
from shammah_gateway.cli.console import as_dict, err, named_errors, out
from shammah_gateway.cli.paths import default_data_dir, find_connection
from shammah_gateway.cli.teach_command import add_command as add_teach

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A local student that learns from Claude.")
models = typer.Typer(no_args_is_help=True, help="The base models.")
app.add_typer(models, name="models")

Files = Annotated[list[Path], typer.Argument(help="workload files: JSON lines, plain or .gz")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
ReleaseId = Annotated[str, typer.Argument(help="id of a release")]
# A little more than a gateway waits until its pods hold a release (`hold_seconds`): it says why it gave up.
ORDER_SECONDS = 330.0


class State:
    """The one global option."""

    data_dir: Path = Path()


@app.callback()
def main_options(
    data_dir: Annotated[Path | None, typer.Option(help="where everything is kept [$SHAMMAH_DATA_DIR]")] = None,
) -> None:
    """Remember the data folder."""
    State.data_dir = (data_dir or default_data_dir()).absolute()


@app.command()
@named_errors
def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="return when everything is ready")] = False,
    teacher: Annotated[str, typer.Option(help="anthropic, openai, recorded or none")] = "",
    recorded: Annotated[list[Path] | None, typer.Option(help="answers of the recorded teacher")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE of a SHAMMAH_... setting")] = None,
) -> None:
    """Start every part on this machine."""
    settings = list(set_ or [])
    if recorded:
        files = ",".join(str(path.absolute()) for path in recorded)
        settings.append(f"SHAMMAH_GATEWAY_RECORDED_FILES={files}")
    kind = teacher or ("recorded" if recorded else "")
    if kind:
        settings.append(f"SHAMMAH_GATEWAY_TEACHER={kind}")
    raise typer.Exit(local.start(State.data_dir, detach=detach, settings=settings))


@app.command()
@named_errors
def down() -> None:
    """Stop every part."""
    raise typer.Exit(local.stop(State.data_dir))


@app.command()
@named_errors
def status(as_json: AsJson = False) -> None:
    """Show the parts, the champion and the promise."""
    local.show_status(State.data_dir, as_json=as_json)


@app.command()
@named_errors
def ask(  # noqa: PLR0913 - typer makes an option of each parameter
    query: str,
    local_only: Annotated[bool, typer.Option(help="never ask the teacher")] = False,
    allow_degraded: Annotated[
        bool, typer.Option(help="a labelled local answer will do when no teacher is there")
    ] = False,
    no_learn: Annotated[bool, typer.Option(help="make no example of it")] = False,
    release: Annotated[str, typer.Option(help="serve by this release")] = "",
    max_tokens: Annotated[int, typer.Option(help="0: the release's own limit")] = 0,
    temperature: float = 0.0,
    alpha: Annotated[float, typer.Option(help="bear at most this share of bad local answers; 0: the release's")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Ask one query."""
    options = asking.AskOptions(
        local_only=local_only,
        allow_degraded=allow_degraded,
        no_learn=no_learn,
        release=release,
        max_tokens=max_tokens,
        temperature=temperature,
        alpha=alpha,
    )
    asking.ask_once(find_connection(State.data_dir), query, options, as_json=as_json)


@app.command()
@named_errors
def chat(
    local_only: bool = False,
    allow_degraded: bool = False,
    no_learn: bool = False,
) -> None:
    """Talk; /good and /bad rate the last answer, /tools lists Claude's tools."""
    options = asking.AskOptions(local_only=local_only, allow_degraded=allow_degraded, no_learn=no_learn)
    asking.chat(find_connection(State.data_dir), options)


@app.command()
@named_errors
def tool(
    name: Annotated[str, typer.Argument(help=", ".join(manage.TOOL_CALLS))],
    arguments: Annotated[str, typer.Option("--json", help="arguments: a JSON object, or @FILE")] = "",
    wait: Annotated[bool, typer.Option(help="follow a long tool to its end")] = True,
    request_id: Annotated[str, typer.Option(help="your key: the same key finds the same job again")] = "",
) -> None:
    """Call one of the five tools, as Claude does."""
    given = manage.read_arguments(arguments)
    result = run(
        find_connection(State.data_dir),
        lambda client: manage.call_tool(client, name, given, wait=wait, request_id=request_id),
    )
    out.print_json(json.dumps(result))


@app.command()
@named_errors
def tools(
    anthropic: Annotated[
        bool, typer.Option("--anthropic", help="for tools=[...] of the Messages API (default)")
    ] = False,
    mcp: Annotated[bool, typer.Option("--mcp", help="as an MCP server lists them")] = False,
) -> None:
    """Print the definitions of the five tools as JSON."""
    if anthropic and mcp:
        raise InvalidInputError("give --anthropic or --mcp, not both")
    claude_tools.print_tools(mcp=mcp)


@app.command(name="mcp")
@named_errors
def serve_mcp(
    url: Annotated[
        str, typer.Option(help="the gateway's HTTP address [$SHAMMAH_URL, else the one that runs here]")
    ] = "",
) -> None:
    """Serve the five tools to an MCP client on standard input and output, through the running gateway."""
    claude_tools.serve(State.data_dir, url)


@app.command(name="learn", cls=offline_learning.LearnCommand)
@named_errors
def learn_files(
    files: Files,
    exam: Annotated[bool, typer.Option(help="these rows are your own exam: never trained on")] = False,
    limit: Annotated[int, typer.Option(min=0, help="at most this many rows of each file; 0 is all")] = 0,
    offline: Annotated[  # read by LearnCommand, before the other arguments are
        bool, typer.Option("--offline", help="learn from files without services; see learn --offline --help")
    ] = False,
) -> None:
    """Put recorded examples on the stream."""
    rows, malformed = learn.read_rows(files, limit=limit)
    report = run(find_connection(State.data_dir), lambda client: learn.learn(client, rows, exam=exam))
    report.malformed = malformed
    learn.print_report(report)
    out.print(f"queued {report.queued} of {len(rows)} rows")


@app.command(name="eval")
@named_errors
def evaluate_files(
    files: Files,
    as_json: AsJson = False,
    release: Annotated[str, typer.Option(help="evaluate this release instead of the champion")] = "",
    by: Annotated[str, typer.Option(help="group rows by category or family")] = "category",
    limit: Annotated[int, typer.Option(min=0, help="at most this many rows of each file; 0 is all")] = 0,
    max_tokens: Annotated[int, typer.Option(help="0: the release's own limits")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="queries in flight")] = 16,
) -> None:
    """Ask a workload through the cascade with learning off, and grade it."""
    if by not in ("category", "family"):
        raise InvalidInputError(f"--by {by}: allowed are category and family")
    rows, malformed = learn.read_rows(files, limit=limit)
    for line in malformed:
        err.print(f"skipped {line}", markup=False)
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("asking", total=len(rows))
        asked = run(
            find_connection(State.data_dir),
            lambda client: evaluate.ask_all(
                client,
                rows,
                release=release,
                max_tokens=max_tokens,
                concurrency=concurrency,
                progress=lambda done: bar.update(task, completed=done),
            ),
        )
    result = evaluate.report(asked, [str(path) for path in files], by=by)
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1, sort_keys=True) + "\n")
    else:
        evaluate.print_report(result, by=by)


@app.command()
@named_errors
def train(
    wait: Annotated[bool, typer.Option(help="stay until the round has ended")] = True,
) -> None:
    """Start a round of training now."""
    result = run(
        find_connection(State.data_dir),
        lambda client: manage.call_tool(client, "train", {"wait": wait}, wait=wait),
    )
    out.print_json(json.dumps(result))


@app.command()
@named_errors
def releases(as_json: AsJson = False) -> None:
    """List the releases, newest first."""
    found = run(find_connection(State.data_dir), manage.list_releases)
    if as_json:
        out.print_json(json.dumps([as_dict(release) for release in found]))
    else:
        manage.print_releases(found)


@app.command()
@named_errors
def promote(release: ReleaseId, force: Annotated[bool, typer.Option(help="although the gate held it")] = False) -> None:
    """Make a release the champion."""
    request = gateway_pb2.PromoteReleaseRequest(release=release, force=force)
    answer = run(
        find_connection(State.data_dir), lambda c: c.call(c.stub.PromoteRelease, request, timeout=ORDER_SECONDS)
    )
    out.print(f"champion {answer.champion}, before {answer.previous}")


@app.command()
@named_errors
def rollback(release: Annotated[str, typer.Argument(help="default: the one before the champion")] = "") -> None:
    """Go back to an earlier release."""
    request = gateway_pb2.RollbackReleaseRequest(release=release)
    answer = run(
        find_connection(State.data_dir), lambda c: c.call(c.stub.RollbackRelease, request, timeout=ORDER_SECONDS)
    )
    out.print(f"champion {answer.champion}, before {answer.previous}, {answer.seconds:.2f} s")


@app.command()
@named_errors
def pin(release: ReleaseId, off: Annotated[bool, typer.Option("--off", help="stop keeping it")] = False) -> None:
    """Keep a release whatever comes."""
    request = gateway_pb2.PinReleaseRequest(release=release, pinned=not off)
    answer = run(find_connection(State.data_dir), lambda c: c.call(c.stub.PinRelease, request, timeout=30))
    out.print(f"{answer.release.id} {'pinned' if answer.release.pinned else 'not pinned'}")


@app.command()
@named_errors
def forget(request: Annotated[str, typer.Argument(help="id of a query or of an example")]) -> None:
    """Remove what a request left in log, ledger, spool and indexes; names the releases that learned from it."""
    asked = gateway_pb2.ForgetRequestRequest(id=request)
    answer = run(find_connection(State.data_dir), lambda c: c.call(c.stub.ForgetRequest, asked, timeout=120))
    out.print(
        f"forgotten: {len(answer.examples)} examples, {answer.messages} messages, {answer.spooled} spooled, "
        f"{answer.rollouts} rollouts"
    )
    if answer.releases:
        out.print(f"releases that learned from it: {', '.join(answer.releases)}; the next round renews the indexes")


@app.command()
@named_errors
def unpark(category: Annotated[str, typer.Argument(help="only examples of this category; default: all")] = "") -> None:
    """Queue examples again that are parked since two rounds in a row failed on them; the next round learns them."""
    asked = gateway_pb2.GatewayServiceUnparkExamplesRequest(category=category)
    answer = run(find_connection(State.data_dir), lambda c: c.call(c.stub.UnparkExamples, asked, timeout=60))
    out.print(f"queued again: {answer.examples} examples of {', '.join(answer.categories)}", markup=False)


@app.command()
@named_errors
def checkpoint() -> None:
    """Keep a checkpoint of now: the release that serves, its position in the log, and the counters."""
    asked = gateway_pb2.TakeCheckpointRequest()
    answer = run(find_connection(State.data_dir), lambda c: c.call(c.stub.TakeCheckpoint, asked, timeout=30))
    out.print(f"checkpoint {answer.id} of release {answer.release}")


add_consent(app, lambda: State.data_dir)
add_teach(app, lambda: State.data_dir)


@models.command()
@named_errors
def pull() -> None:
    """Fetch, check and convert the base models (once)."""
    done = subprocess.run([sys.executable, "-m", "shammah_trainer.pull"], check=False)
    if done.returncode == 1 and not _has_trainer():
        raise UnavailableError("the trainer is not installed here; base models are converted on its machine")
    raise typer.Exit(done.returncode)


def _has_trainer() -> bool:
    from importlib.util import find_spec

    return find_spec("shammah_trainer") is not None


@app.command()
@named_errors
def demo(
    keep: Annotated[bool, typer.Option(help="leave everything running at the end")] = False,
    seed: int = 7,
) -> None:
    """Teach four categories and show that a fifth is left to the teacher."""
    from shammah_gateway.demo.play import play  # here: no other command needs it

    raise typer.Exit(play(keep=keep, seed=seed))


def main() -> None:
    """Run the command line."""
    app()
