"""Message Batches, passed on to the teacher: a batch is never answered locally.

Three things are ours: each caller sees its own batches only (the account behind is one for all), `results_url` names
this host (clients follow it as it is written), and the results are booked the first time that they are read to their
end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from shammah_chassis.errors import InvalidInputError, TeacherError
from shammah_chassis.scopes import Caller
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shammah_gateway.http.anthropic_wire import VERSION_HEADER, check_version
from shammah_gateway.http.batch_book import BatchBook
from shammah_gateway.http.batch_list import list_own
from shammah_gateway.http.batch_owners import SEES_ALL, BatchOwners
from shammah_gateway.http.door import Door, Handler, parse_object
from shammah_gateway.http.errors import NotOfferedError
from shammah_gateway.http.messages import OUR_WORD
from shammah_gateway.http.passage import Passage
from shammah_gateway.http.passthrough import Opened, PassThrough
from shammah_gateway.http.relay import AUTHOR, RelayedResponse, make_passage, read_changed, read_whole

PATH = "/v1/messages/batches"
ONE = f"{PATH}/{{batch_id}}"
_RESULTS_URL = re.compile(rb'("results_url"\s*:\s*)"[^"\\]*?/batches/([A-Za-z0-9_-]+)/results[^"\\]*"')
_OUR_MODEL = re.compile(rb'"model"\s*:\s*"(?:claude-)?shammah-')


def routes(door: Door) -> list[Route]:
    """Return the routes of batches."""
    return [
        door.route(method, path, handler, style="anthropic")
        for (method, path), handler in _Batches(door).handlers().items()
    ]


class _Batches:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._way = door.passthrough("messages")
        self._book = BatchBook(door.ledger, door.state_dir)
        # With their own keys the teacher tells callers apart.
        own_key = door.settings.http_credentials == "own"
        self._owners = BatchOwners(door.state_dir) if own_key else None

    def handlers(self) -> dict[tuple[str, str], Handler]:
        return {
            ("POST", PATH): self._create,
            ("GET", PATH): self._list,
            ("GET", ONE): self._show,
            ("DELETE", ONE): self._show,
            ("POST", f"{ONE}/cancel"): self._show,
            ("GET", f"{ONE}/results"): self._results,
        }

    async def _create(self, request: Request, caller: Caller) -> Response:
        way = self._ready(request)
        body = await self._door.read_body(request)
        if OUR_WORD in body and _OUR_MODEL.search(body):
            raise InvalidInputError("requests.params.model: a batch goes to the teacher; name one of its own models")
        hold = self._book.take(body, caller)
        try:
            opened = await way.open(self._passage(request, caller, body))
            response = await read_changed(opened, self._point_home(request))
        except BaseException:
            self._book.lose(hold)
            raise
        if opened.fault is not None:
            self._book.refuse(hold)
        else:
            batch = _read_id(bytes(response.body))
            self._book.remember(batch, hold)
            if self._owners is not None:
                await self._owners.note(batch, caller)
        return response

    async def _list(self, request: Request, caller: Caller) -> Response:
        way, owners = self._ready(request), self._owners
        passage = self._passage(request, caller, None)
        if owners is None or SEES_ALL in caller.scopes:
            return await read_changed(await way.open(passage), self._point_home(request))
        pages: list[Opened] = []

        async def fetch(query: Mapping[str, str]) -> dict[str, Any]:
            opened = await way.open(replace(passage, target=f"{PATH}?{urlencode(query)}"))
            pages.append(opened)
            if opened.fault is not None:
                raise _FaultError
            return _parse_page(await read_whole(opened))

        try:
            found = await list_own(request.query_params, lambda batch: owners.owns(batch, caller), fetch)
        except _FaultError:
            return await read_changed(pages[-1], self._point_home(request))
        body = self._point_home(request)(json.dumps(found).encode())
        return Response(body, media_type="application/json", headers=dict(AUTHOR))

    def _check_owner(self, request: Request, caller: Caller) -> None:
        if self._owners is not None:
            self._owners.check(request.path_params["batch_id"], caller)

    async def _show(self, request: Request, caller: Caller) -> Response:
        way = self._ready(request)
        self._check_owner(request, caller)
        body = await self._door.read_body(request)
        opened = await way.open(self._passage(request, caller, body or None))
        return await read_changed(opened, self._point_home(request))

    async def _results(self, request: Request, caller: Caller) -> Response:
        way = self._ready(request)
        self._check_owner(request, caller)
        opened = await way.open(self._passage(request, caller, None))
        reading = self._book.read(request.path_params["batch_id"], caller)
        return RelayedResponse(opened, tee=reading.feed, ended=reading.finish)

    def _ready(self, request: Request) -> PassThrough:
        check_version(request.headers.get(VERSION_HEADER, ""))
        if self._way is None:
            raise NotOfferedError("batches are the teacher's, and none is set up that takes them")
        return self._way

    def _passage(self, request: Request, caller: Caller, body: bytes | None) -> Passage:
        keep = self._door.settings.http_credentials == "client"
        return make_passage(request, caller, body, keep_credentials=keep)

    def _point_home(self, request: Request) -> Callable[[bytes], bytes]:
        """Return what puts this host into `results_url`, as the caller addressed it."""
        home = f"{request.url.scheme}://{request.url.netloc}{PATH}".encode()
        return lambda body: _RESULTS_URL.sub(rb'\1"' + home.replace(b"\\", b"") + rb'/\2/results"', body)


class _FaultError(Exception):
    """A page of the list is an error of the upstream."""


def _parse_page(body: bytes) -> dict[str, Any]:
    """Return a page of the list; TeacherError when it is none."""
    try:
        return parse_object(body)
    except InvalidInputError as error:
        raise TeacherError("the teacher's list of batches is not of its protocol") from error


def _read_id(body: bytes) -> str:
    try:
        return str(json.loads(body)["id"])
    except (ValueError, KeyError, TypeError):
        return ""
