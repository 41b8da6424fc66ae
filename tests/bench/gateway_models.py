"""A release of the base models that serves one made-up category and forwards another, and the real pods that hold it.

The versions are those of release 0; the router is then trained on a few rows of both categories, as a round would, and
the policy lets every answer of the one category through. No answer is any good by that: only its way is timed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway_rig import Gateway, Target, run_gateway, run_part
from shammah_chassis.bus import Bus
from shammah_chassis.directory_store import DirectoryStore
from shammah_chassis.encoder import TextTokenizer
from shammah_chassis.nats_server import NatsServer
from shammah_chassis.releases import CategoryPolicy, Champion, Release, Wanted
from shammah_trainer.base_models import find_models_dir, pull
from shammah_trainer.encoders.results import RouterHyper, RouterRow
from shammah_trainer.encoders.train_router import train_router
from shammah_trainer.publishing import Description, make_version
from shammah_trainer.release_zero import build_release_zero

ROLES = ("router", "generator", "validator")
SERVED, FORWARDED = "echo", "other"
PRECISION = "int8"
ROUTED_TOKENS, LOCAL_TOKENS, ANSWER_TOKENS = 16, 60, 3
# 48 of its tokens are the beginning that all prompts of the task share, in whole blocks of the prefix cache.
TASK = (
    "You are a careful clerk. Below is one short note. Say exactly the words of the note, word for word, with nothing "
    "before them, nothing after them and no comment of your own. Here is the note to say:\n\n{}"
)
_SIZES = ("Two", "Old", "New", "Big", "Small", "Ten", "Long", "Cheap")
_COLOURS = ("red", "blue", "green", "white", "black", "brown", "grey")
_THINGS = ("cars", "houses", "books", "doors", "shoes", "birds", "chairs", "hats", "boats", "tables", "cups", "dogs")
_FEWEST, _MOST = 4, 8
_START_SECONDS = 120.0


def list_notes() -> list[str]:
    """Return queries of the category that is served."""
    words = zip(itertools.cycle(_SIZES), itertools.cycle(_COLOURS), itertools.cycle(_THINGS), strict=False)
    return [TASK.format(" ".join(next(words))) for _ in range(96)]


def list_questions() -> list[str]:
    """Return queries of the category that is forwarded, each of 16 tokens to the router's tokenizer."""
    towns = ("Paris", "London", "Rome", "Berlin", "Madrid", "Vienna", "Prague", "Oslo", "Dublin", "Athens")
    encoder = TextTokenizer(pull(find_models_dir()).encoder / "tokenizer.json", max_tokens=256)
    pairs = [(a, b) for a in towns for b in towns if a != b]
    found = [f"Which train leaves {a} for {b} on Monday and how many stops does it make?" for a, b in pairs]
    # Beside the text there are its beginning and its end.
    kept = [text for text, row in zip(found, encoder.encode(found), strict=True) if len(row.ids) == ROUTED_TOKENS + 2]
    if len(kept) < _FEWEST:
        raise SystemExit(f"only {len(kept)} of {len(found)} questions have {ROUTED_TOKENS} tokens")
    return kept


async def publish_release(folder: Path, bus_url: str) -> Release:
    """Make the release below `folder`, publish it in its store, and make it the champion."""
    base = pull(find_models_dir())
    release, versions = build_release_zero(base, folder / "made", precision=PRECISION, fence=0)
    parent = versions["router"]
    rows = [RouterRow(text, SERVED, local_good=True) for text in list_notes()]
    rows += [RouterRow(text, FORWARDED, local_good=False) for text in list_questions()]
    out = folder / "made/trained-router"
    result = train_router(parent.folder, rows, out, hyper=RouterHyper(), seed=0)
    about = Description(config=result.config, labels=result.labels, hyper=result.hyper, metrics=result.metrics)
    versions["router"] = make_version("router", out, parent=parent.manifest, about=about)
    release = replace(
        release,
        router=versions["router"].manifest.version,
        categories={
            SERVED: CategoryPolicy(threshold=0.0, rows=1, max_new_tokens=16),
            FORWARDED: CategoryPolicy(threshold=None, rows=1),
        },
    )
    store = DirectoryStore(folder / "store")
    for version in versions.values():
        await store.publish_version(version.folder, version.manifest)
    await store.publish_release(release)
    bus = await Bus.connect(bus_url)
    try:
        await bus.ensure()
        await bus.kv_create("wanted", Wanted((release.id,)).to_json())
        await bus.kv_create("champion", Champion(release.id).to_json())
    finally:
        await bus.close()
    return release


@contextmanager
def run_pods(folder: Path, bus: NatsServer) -> Iterator[Mapping[str, str]]:
    """Run a pod of each role with its default settings; yields their addresses by role."""
    with ExitStack() as stack:
        found = {}
        for role in ROLES:
            own = folder / role
            own.mkdir()
            settings = {
                "tokens_file": folder / "tokens.json",
                "nats_url": bus.url,
                "data_dir": own,
                "store_url": f"dir:{folder / 'store'}",
                "ready_file": own / "ready.json",
                "log_level": "WARNING",
            }
            _, ports = stack.enter_context(run_part(role, settings, log=own / "pod.log"))
            found[role] = f"127.0.0.1:{ports['port']}"
        yield found


@dataclass(frozen=True, slots=True)
class Whole:
    """A gateway before real pods: the requests that it forwards, and those that it answers itself."""

    gateway: Gateway
    forwarded: Target
    local: Target


@contextmanager
def run_whole(folder: Path, upstream: str, *, bus: NatsServer, tokens: Mapping[str, str]) -> Iterator[Whole]:
    """Make the release, start the pods and a gateway that routes; yields when both ways were seen to work."""
    asyncio.run(publish_release(folder, bus.url))
    with ExitStack() as stack:
        pods = stack.enter_context(run_pods(folder, bus))
        targets = {f"{role}_targets": address for role, address in pods.items()}
        more = {"internal_token_file": folder / "internal.token", "audit_rate": 0, "explore_rate": 0}
        gateway = stack.enter_context(run_gateway(folder, upstream, bus=bus, tokens=tokens, **targets, **more))
        yield Whole(gateway, _aim_forwarded(gateway), _aim_local(gateway))


def head_of(gateway: Gateway) -> dict[str, str]:
    """Return the headers of a request to a gateway of ours."""
    return {
        "content-type": "application/json",
        "anthropic-version": "2026-10-21",
        "authorization": f"Bearer {gateway.token}",
    }


def write_body(content: str, model: str) -> dict[str, Any]:
    """Return a request of one turn."""
    return {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": content}]}


def _aim_forwarded(gateway: Gateway) -> Target:
    """Return requests that the router must see before they are forwarded; waits until the release serves."""
    target = Target(
        f"{gateway.url}/v1/messages",
        head_of(gateway),
        [write_body(text, "claude-shammah-auto") for text in list_questions()],
        # The category is known by the router only.
        ["x-shammah-route: teacher", "x-shammah-reason: uncertified", f"x-shammah-category: {FORWARDED}"],
    )
    limit = time.monotonic() + _START_SECONDS
    while True:
        headers, _ = _ask(target, target.bodies[0])
        if headers.get("x-shammah-category") == FORWARDED:
            return target
        if time.monotonic() > limit:
            raise SystemExit(f"the router does not see the category {FORWARDED!r}: {headers}")
        time.sleep(0.2)


def _aim_local(gateway: Gateway) -> Target:
    """Return requests of the wanted size that get a local answer of the wanted size."""
    address, head = f"{gateway.url}/v1/messages", head_of(gateway)
    bodies = [write_body(text, "claude-shammah-auto") for text in list_notes()]
    target = Target(address, head, bodies, ["x-shammah-route: local"])
    kept, seen = [], []
    for body in bodies:
        headers, message = _ask(target, body)
        counts = (headers.get("x-shammah-route"), *(message["usage"][f"{way}_tokens"] for way in ("input", "output")))
        seen.append((*counts, headers.get("x-shammah-reason")))
        # The end of the answer is a token too.
        if counts == ("local", LOCAL_TOKENS, ANSWER_TOKENS + 1):
            kept.append(body)
        if len(kept) == _MOST:
            break
    if len(kept) < _FEWEST:
        raise SystemExit(f"only {len(kept)} prompts got a local answer of {ANSWER_TOKENS} tokens: {seen}")
    return Target(address, head, kept, ["x-shammah-route: local", f'"output_tokens":{ANSWER_TOKENS + 1}'])


def _ask(target: Target, body: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Send one request; returns the headers, in lower case, and the message."""
    request = urllib.request.Request(target.url, json.dumps(body).encode(), dict(target.headers), method="POST")
    with urllib.request.urlopen(request, timeout=60) as got:
        return {name.lower(): value for name, value in got.headers.items()}, json.loads(got.read())
