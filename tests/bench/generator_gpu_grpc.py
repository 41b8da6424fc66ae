"""Many streams through the generator's real servicer, read by client processes of their own.

The servicer, its streams and its wire are those that serve; what is left out is the pod around them (tokens, event
bus), which takes no part in a stream. Run as a program it is one client process.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("services/generator", "services/chassis", "protos/gen")]

CLIENTS = 4


@dataclass(frozen=True)
class _Leased:
    value: Any
    release: str = "bench"
    version: str = "bench"


class _Held:
    """One version that is always held."""

    def __init__(self, engine: Any) -> None:
        self._leased = _Leased(SimpleNamespace(engine=engine))

    @contextmanager
    def lease(self, release: str) -> Iterator[_Leased]:
        yield self._leased


def measure_grpc(engine: Any, words: tuple[int, ...], *, streams: int, tokens: int) -> float:
    """Tokens a second, counted where the clients read them, while all streams run."""
    return asyncio.run(_measure(engine, len(words), streams, tokens))


async def _measure(engine: Any, length: int, streams: int, tokens: int) -> float:
    from grpc import aio
    from shammah.v1 import generator_pb2_grpc
    from shammah_generator.server import GeneratorServicer

    server = aio.server()
    settings = SimpleNamespace(default_max_tokens=64, context=1024)
    generator_pb2_grpc.add_GeneratorServiceServicer_to_server(GeneratorServicer(_Held(engine), settings), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    command = [sys.executable, __file__, str(port), str(streams // CLIENTS), str(tokens), str(length)]
    children = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(CLIENTS)]
    answers = [json.loads((await child.communicate())[0]) for child in children]
    await server.stop(1)
    begin = max(answer["all_began"] for answer in answers)
    end = min(answer["first_end"] for answer in answers)
    counted = sum(count for answer in answers for when, count in answer["messages"] if begin < when <= end)
    return counted / (end - begin)


async def _read_all(port: int, streams: int, tokens: int, length: int) -> dict[str, Any]:
    from grpc import aio
    from shammah.v1 import generator_pb2, generator_pb2_grpc, types_pb2

    messages: list[tuple[float, int]] = []
    began: list[float] = []
    ended: list[float] = []
    channels = [aio.insecure_channel(f"127.0.0.1:{port}") for _ in range(4)]

    async def read(index: int) -> None:
        stub = generator_pb2_grpc.GeneratorServiceStub(channels[index % len(channels)])
        text = " ".join(["word"] * (length - 10)) + f" {index}"
        request = generator_pb2.GenerateRequest(
            messages=[types_pb2.Message(role="user", content=text)],
            sampling=generator_pb2.Sampling(max_tokens=tokens),
        )
        first = True
        async for message in stub.Generate(request):
            now = time.monotonic()
            if first:
                began.append(now)
                first = False
            messages.append((now, len(message.token_ids)))
        ended.append(time.monotonic())

    await asyncio.gather(*(read(index) for index in range(streams)))
    return {"all_began": max(began), "first_end": min(ended), "messages": messages}


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:5]]
    print(json.dumps(asyncio.run(_read_all(*given))))
