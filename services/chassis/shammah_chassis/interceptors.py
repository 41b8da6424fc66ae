"""What happens around each call of a server: who calls, which request it is, how its errors leave, and its metrics.

This is the single place where an unexpected exception is caught. The client's side (`channel`, `to_error`) is in
`channels` and `status`, and is offered here too. It does not know what the handlers do.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from grpc import aio

from shammah_chassis.channels import REQUEST_ID_KEY, channel
from shammah_chassis.errors import ShammahError
from shammah_chassis.logs import level_of, request_id
from shammah_chassis.metrics import ServiceMetrics
from shammah_chassis.scopes import is_open, set_caller
from shammah_chassis.status import status_of, to_error, trailers_of
from shammah_chassis.tokens import TokenTable
from shammah_chassis.ulid import new_ulid

__all__ = ["CallInterceptor", "channel", "to_error"]

logger = logging.getLogger(__name__)
Context = aio.ServicerContext[Any, Any]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]]
_MAX_REQUEST_ID = 64


class CallInterceptor(aio.ServerInterceptor):
    """Wraps every handler of a server but health and reflection, which are open to all."""

    def __init__(self, tokens: TokenTable, metrics: ServiceMetrics) -> None:
        self._tokens = tokens
        self._metrics = metrics

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler with our care around it."""
        handler = await continuation(handler_call_details)
        method = _text(handler_call_details.method)
        if handler is None or is_open(method):
            return handler
        if handler.request_streaming:
            raise TypeError(f"{method}: streams of requests are not offered by any service")
        headers = {_text(key): _text(value) for key, value in handler_call_details.invocation_metadata or ()}
        care = _Care(method, headers, self._tokens, self._metrics)
        inner: Any = handler.unary_stream if handler.response_streaming else handler.unary_unary
        wrapped: Any = care.stream(inner) if handler.response_streaming else care.unary(inner)
        make = (
            grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(
            wrapped,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Care:
    """One call: its method and headers, and what checks and counts it."""

    method: str
    headers: dict[str, str]
    tokens: TokenTable
    metrics: ServiceMetrics

    def unary(self, handler: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        """Wrap a handler with one answer."""

        async def call(request: Any, context: Context) -> Any:  # noqa: ANN401
            async with self._around(context):
                return await handler(request, context)

        return call

    def stream(self, handler: Callable[[Any, Context], Any]) -> Callable[[Any, Context], Awaitable[None]]:
        """Wrap a handler with a stream of answers, be it an async generator or a coroutine that writes.

        The answers are written here, not yielded on: a call that the client gives up then closes the generator at
        once, and with it what the generator holds (a lease, a slot).
        """

        async def call(request: Any, context: Context) -> None:  # noqa: ANN401
            async with self._around(context):
                answers = handler(request, context)
                if not hasattr(answers, "__aiter__"):
                    await answers
                    return
                async with aclosing(answers):
                    async for answer in answers:
                        await context.write(answer)

        return call

    @asynccontextmanager
    async def _around(self, context: Context) -> AsyncIterator[None]:
        """Check the caller, run the call, and turn its end into a status and a count."""
        start = time.monotonic()
        code = grpc.StatusCode.OK
        error: ShammahError | None = None
        request_id.set(self.headers.get(REQUEST_ID_KEY, "")[:_MAX_REQUEST_ID] or new_ulid())
        try:
            set_caller(self.tokens.authorise(self.method, self.headers.get("authorization")))
            yield
        except ShammahError as named:
            error, code = named, status_of(named)
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except aio.AbortError:
            code = grpc.StatusCode.UNKNOWN
            raise
        except Exception:
            # The single broad catch: what nobody foresaw must not tell the caller more than that it happened.
            logger.exception("%s failed unexpectedly", self.method)
            error, code = ShammahError("internal error"), grpc.StatusCode.INTERNAL
        finally:
            self.metrics.observe(self.method, code.name, time.monotonic() - start)
        if error is not None:
            logger.log(level_of(error), "%s: %s: %s", self.method, error.code, error.message)
            await context.abort(code, error.message, trailers_of(error))


def _text(value: str | bytes | None) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value or ""
