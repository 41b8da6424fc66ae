"""Decoding speed of the engine against llama.cpp, transformers and the bandwidth of the memory, interleaved.

Each repetition runs every contestant once, one after the other; a figure is the median of the ratios of a repetition.
The contestants that wait hold no core: a waiting child blocks on its input, a waiting engine on a condition.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from generator_runs import (
    BASE,
    NEW_TOKENS,
    PROMPT_TOKENS,
    Plan,
    RecordedModel,
    decode_rate,
    describe,
    opened,
    random_prompts,
)
from peers.llama import Llama, running_llama
from peers.memory import MemoryReader
from shammah_generator.engine import Engine
from shammah_generator.graph_native import can_serve
from shammah_generator.native import find_library
from shammah_generator.packing import lay_out, stores_head
from shammah_generator.precision import PLANS, check_precision
from shammah_generator.weights import read_weights
from system import Figure

IDS = (
    "decode1_vs_llamacpp",
    "decode32_vs_llamacpp",
    "decode32_fast_vs_llamacpp",
    "decode32_vs_transformers",
    "decode1_vs_floor",
)
STREAMS = 32
_SHORT_RUNS = 5
CONTEXT = PROMPT_TOKENS + NEW_TOKENS + STREAMS
_PEERS = {
    "decode1_vs_llamacpp": ("int8_1", "llama_1"),
    "decode32_vs_llamacpp": ("int8_32", "llama_32"),
    "decode32_fast_vs_llamacpp": ("fast_32", "llama_32"),
    "decode32_vs_transformers": ("int8_32", "transformers_32"),
    "decode1_vs_floor": ("int8_1", "floor"),
}
Contestant = Callable[[int], float]


def measure(wanted: Sequence[str], plan: Plan) -> Iterator[Figure]:
    """Yield the wanted figures."""
    needed = {name for figure in wanted for name in _PEERS[figure]}
    with ExitStack() as stack:
        notes: dict[str, str] = {}
        contestants = _prepare(needed, plan, stack, notes)
        for contestant in contestants.values():
            contestant(1000)  # warms up
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(plan.repetitions):
            for name, contestant in contestants.items():
                rates[name].append(contestant(number))
            print("  " + ", ".join(f"{name} {values[-1]:.1f}" for name, values in rates.items()), flush=True)
    for figure in wanted:
        yield _compare(figure, rates, notes)


def _compare(figure: str, rates: dict[str, list[float]], notes: dict[str, str]) -> Figure:
    ours, peer = _PEERS[figure]
    ratios = [mine / other for mine, other in zip(rates[ours], rates[peer], strict=True)]
    unit = " tokens/s"
    note = (
        f"ratio {describe(ratios)}; ours {describe(rates[ours], unit)}; peer {describe(rates[peer], unit)}; "
        f"{notes[ours]}; {notes[peer]}"
    )
    return Figure(
        figure, statistics.median(ratios), "ratio", note, notes[f"{peer}.name"], statistics.median(rates[peer])
    )


def _prepare(needed: set[str], plan: Plan, stack: ExitStack, notes: dict[str, str]) -> dict[str, Contestant]:
    """Open what is needed; returns the functions that run it once and give tokens/s."""
    found: dict[str, Contestant] = {}
    if needed & {"int8_1", "int8_32"}:
        pair = stack.enter_context(opened("int8", slots=STREAMS, threads=plan.threads, context=CONTEXT))
        found |= {name: _engine(pair, int(name[5:]), plan) for name in ("int8_1", "int8_32") if name in needed}
        notes |= dict.fromkeys(("int8_1", "int8_32"), _ENGINE_NOTE.format("int8"))
    if "fast_32" in needed:
        pair = stack.enter_context(opened("int8_fast", slots=STREAMS, threads=plan.threads, context=CONTEXT))
        found["fast_32"] = _engine(pair, STREAMS, plan)
        notes["fast_32"] = _ENGINE_NOTE.format("int8_fast")
    if needed & {"llama_1", "llama_32"}:
        llama = stack.enter_context(running_llama(threads=plan.threads))
        for name in sorted(needed & {"llama_1", "llama_32"}):
            found[name], notes[name] = _llama(llama, int(name[6:]), plan)
            notes[f"{name}.name"] = "llama.cpp Q8_0"
    if "transformers_32" in needed:
        found["transformers_32"] = _transformers(plan)
        notes["transformers_32"] = "generate(), fp32, greedy, attention mask given; the time of one token is taken off"
        notes["transformers_32.name"] = "transformers fp32"
    if "floor" in needed:
        found["floor"], notes["floor"] = stack.enter_context(_floor(plan))
        notes["floor.name"] = "memory bandwidth, in tokens/s"
    # Those that are compared stand next to each other.
    order = ("floor", "int8_1", "llama_1", "fast_32", "llama_32", "int8_32", "transformers_32")
    return {name: found[name] for name in order if name in found}


def _describe_operators() -> str:
    library = find_library()
    return "ONNX Runtime's operators" if library is None else f"own operators by {'AMX' if library.amx else 'VNNI'}"


_ENGINE_NOTE = (
    f"engine {{}}, {_describe_operators()}, prompts of {PROMPT_TOKENS}, counted while all streams decode: greedy "
    "choice, entropy, margin and text included"
)


def _engine(pair: tuple[RecordedModel, Engine], streams: int, plan: Plan) -> Contestant:
    model, engine = pair
    return _steady(
        lambda number: decode_rate(model, engine, random_prompts(streams, seed=number), plan.new_tokens), streams
    )


def _steady(run: Contestant, streams: int) -> Contestant:
    """One stream takes half a second, too short on a machine with neighbours: the median of five runs is taken."""
    if streams > 1:
        return run
    return lambda number: statistics.median(run(number) for _ in range(_SHORT_RUNS))


def _llama(llama: Llama, sequences: int, plan: Plan) -> tuple[Contestant, str]:
    name, context = f"of {sequences}", PROMPT_TOKENS + NEW_TOKENS
    prompts = random_prompts(sequences, seed=0)
    chosen = llama.open_best(name, prompts, threads=plan.threads, context=context, thorough=not plan.quick)
    shares: list[float] = []

    def run(number: int) -> float:
        result = llama.decode(name, random_prompts(sequences, seed=number), plan.new_tokens)
        shares.append(result["without_choosing"] / result["tokens_per_s"] - 1)
        return float(result["tokens_per_s"])

    run(999)  # so that the note can say what choosing costs
    about = llama.ask("describe")
    note = (
        f"llama-cpp-python {about['version']}, {plan.threads} threads, {chosen}; choice by argmax included, it costs "
        f"{statistics.median(shares):.1%}; built by gcc with -O3 -march=native; {about['system'].strip(' |')}"
    )
    return _steady(run, sequences), note


def _transformers(plan: Plan) -> Contestant:
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(plan.threads)
    model = LlamaForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()

    def time_tokens(ids: torch.Tensor, tokens: int) -> float:
        begun = time.perf_counter()
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
        assert made.shape[1] == ids.shape[1] + tokens
        return time.perf_counter() - begun

    def run(number: int) -> float:
        with torch.inference_mode():
            ids = torch.tensor(random_prompts(STREAMS, seed=number))
            first = time_tokens(ids, 1)
            return STREAMS * (plan.new_tokens - 1) / (time_tokens(ids, plan.new_tokens) - first)

    return run


@contextmanager
def _floor(plan: Plan) -> Iterator[tuple[Contestant, str]]:
    """Yield what gives the tokens/s of one stream if a step did nothing but read what it must."""
    size = count_read_bytes("int8", length=PROMPT_TOKENS + plan.new_tokens // 2)
    with tempfile.TemporaryDirectory() as folder:
        reader = MemoryReader(size, threads=plan.threads, folder=Path(folder))
        speed, way = reader.measure()
        yield (
            lambda _: reader.measure()[0] / size,
            f"a token reads {size / 1e6:.1f} MB of weights, keys and values; an array of that size was read by {way} "
            f"at {speed / 1e9:.1f} GB/s (first try; again in each repetition), {plan.threads} threads",
        )


def count_read_bytes(precision: str, *, length: int) -> int:
    """Return the bytes that one decoding step of one stream must read, `length` tokens into its context.

    All weights once but the table of embeddings (one row of it) and the rotary tables; keys and values are float16
    where our own operators compute.
    """
    from shammah_chassis.manifest import load_json
    from shammah_generator.architecture import Architecture

    a = Architecture.from_config(load_json(BASE / "config.json"))
    known = check_precision(precision)
    library = find_library() if can_serve(a, known) else None
    weights = read_weights(BASE / "model.safetensors", a, precision=known, threads=2, library=library)
    skipped = ["cos", "sin"]
    if stores_head(a, PLANS[known]):
        skipped.append("embedding")
    read = sum({v.ctypes.data: v.nbytes for name, v in weights.items() if not name.startswith(tuple(skipped))}.values())
    if library and "embedding" in skipped:
        read -= math.prod(lay_out(a, known)["embedding"].shape)
    return read + 2 * a.layers * a.kv_width * (2 if library else 4) * length
