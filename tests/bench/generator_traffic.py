"""What callers see: the cost of gRPC over the engine alone, and the time to the first token in company."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
from generator_pod import RunningPod, running_pod, write_version
from generator_runs import PROMPT_TOKENS, Plan, Stream, describe, opened, random_prompts, submit, window_rate
from grpc import aio
from shammah.v1 import generator_pb2, generator_pb2_grpc, types_pb2
from shammah_chassis.examples import Message
from shammah_generator.chat import encode_prompt, load_tokenizer
from shammah_generator.engine import Engine
from shammah_generator.requests import Request
from shammah_generator.sampling import Sampling
from system import Figure

IDS = ("grpc32_vs_engine", "ttft8_vs_alone")
STREAMS = 32
COMPANY = 8
# Long enough that all streams run together for most of the time.
_LONG = 192
_WORDS = "red house seven river please book table tomorrow answer city number green station paper light water"


def measure(wanted: Sequence[str], plan: Plan) -> Iterator[Figure]:
    """Yield the wanted figures."""
    if "grpc32_vs_engine" in wanted:
        yield asyncio.run(measure_grpc(plan))
    if "ttft8_vs_alone" in wanted:
        yield measure_first_token(plan)


async def measure_grpc(plan: Plan) -> Figure:
    """Compare a pod, asked by 32 streams of one client on this machine, with the engine in this process."""
    tokens = _LONG if not plan.quick else 64
    context = PROMPT_TOKENS + tokens
    through, alone = [], []
    with tempfile.TemporaryDirectory(prefix="shammah-bench-") as name:
        root = Path(name)
        manifest = write_version(root / "version", endless=True)
        texts = make_texts(STREAMS, root / "version/tokenizer.json")
        settings = {"THREADS": plan.threads, "SLOTS": STREAMS, "CONTEXT": context}
        requests = [Request(messages=(Message("user", text),), sampling=Sampling(max_tokens=tokens)) for text in texts]
        async with running_pod(root, root / "version", manifest, precision="int8", settings=settings) as pod:
            with opened(
                "int8",
                slots=STREAMS,
                threads=plan.threads,
                context=context,
                folder=root / "version",
                endless=False,
                prefix_bytes=64 << 20,
            ) as (_, engine):
                for number in range(plan.repetitions + 1):
                    rates = (await _run_pod(pod, texts, tokens), await asyncio.to_thread(_run_engine, engine, requests))
                    if number:  # the first one warms up
                        through.append(rates[0])
                        alone.append(rates[1])
    ratios = [one / other for one, other in zip(through, alone, strict=True)]
    unit = " tokens/s"
    note = (
        f"ratio {describe(ratios)}; pod {describe(through, unit)}; engine {describe(alone, unit)}; {STREAMS} streams, "
        f"prompts of {PROMPT_TOKENS}, {tokens} new tokens, counted at the caller while all streams decode; the client "
        "runs on the same cores"
    )
    return Figure("grpc32_vs_engine", statistics.median(ratios), "ratio", note, "engine", statistics.median(alone))


def make_texts(count: int, tokenizer_path: Path) -> list[str]:
    """Return messages whose prompts in chat form have exactly 64 tokens."""
    tokenizer = load_tokenizer(tokenizer_path)
    choice = _WORDS.split()
    texts = []
    for number in range(count):
        words: list[str] = [choice[number % len(choice)], str(number)]
        place = number
        while (length := len(encode_prompt(tokenizer, [Message("user", " ".join(words))]))) != PROMPT_TOKENS:
            if length > PROMPT_TOKENS:
                words.pop()
            place += 1
            words.append(choice[(place * (number + 1)) % len(choice)])
        texts.append(" ".join(words))
    return texts


async def _run_pod(pod: RunningPod, texts: Sequence[str], tokens: int) -> float:
    streams = await asyncio.gather(*(_ask(pod, text, tokens) for text in texts))
    return window_rate(streams)


async def _ask(pod: RunningPod, text: str, tokens: int) -> Stream:
    """Read one stream; while the pod still loads its release the call is repeated."""
    request = generator_pb2.GenerateRequest(
        release=pod.release,
        messages=[types_pb2.Message(role="user", content=text)],
        sampling=generator_pb2.Sampling(max_tokens=tokens),
    )
    stub = generator_pb2_grpc.GeneratorServiceStub(pod.opened)
    limit = time.monotonic() + 60
    while True:
        stream = Stream()
        try:
            async for message in stub.Generate(request):
                stream.arrivals.append((time.perf_counter(), len(message.token_ids)))
            return _check(stream, tokens)
        except aio.AioRpcError as error:
            loading = error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)
            if not loading or time.monotonic() > limit:
                raise
            await asyncio.sleep(0.2)


def _check(stream: Stream, tokens: int) -> Stream:
    made = sum(count for _, count in stream.arrivals)
    if made != tokens:
        raise SystemExit(f"a response ended after {made} of {tokens} tokens")
    return stream


def _run_engine(engine: Engine, requests: Sequence[Request]) -> float:
    streams = []
    for request in requests:
        streams.append(Stream())
        engine.submit(request, streams[-1].take)
    for stream in streams:
        stream.wait()
    return window_rate(streams)


def measure_first_token(plan: Plan) -> Figure:
    """Compare the time to the first chunk with 8 closed-loop streams and with one, on the engine alone."""
    alone, together = [], []
    with opened("int8", slots=STREAMS, threads=plan.threads) as (_, engine):
        for number in range(plan.repetitions):
            alone.append(1e3 * statistics.median(_first_tokens(engine, 1, plan, seed=2 * number)))
            together.append(1e3 * statistics.median(_first_tokens(engine, COMPANY, plan, seed=2 * number + 1)))
    ratios = [one / other for one, other in zip(together, alone, strict=True)]
    note = (
        f"ratio {describe(ratios)}; p50 with {COMPANY} streams {describe(together, ' ms')}, alone "
        f"{describe(alone, ' ms')}; closed loop, {plan.rounds} requests a stream after one that is not counted, "
        f"prompts of {PROMPT_TOKENS}, {plan.new_tokens} new tokens"
    )
    return Figure("ttft8_vs_alone", statistics.median(ratios), "ratio", note, "alone, ms", statistics.median(alone))


def _first_tokens(engine: Engine, streams: int, plan: Plan, *, seed: int) -> list[float]:
    """Return the seconds from sending to the first chunk; each stream sends again when its response has ended."""
    prompts = random_prompts(streams * (plan.rounds + 1), seed=seed)
    found: list[float] = []

    def loop(place: int) -> None:
        for number, prompt in enumerate(prompts[place::streams]):
            stream = submit(engine, prompt, plan.new_tokens)
            stream.wait()
            if number:
                found.append(stream.arrivals[0][0] - stream.sent)

    loops = [threading.Thread(target=loop, args=(place,)) for place in range(streams)]
    for thread in loops:
        thread.start()
    for thread in loops:
        thread.join()
    return found
