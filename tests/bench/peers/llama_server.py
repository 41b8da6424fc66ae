"""llama.cpp behind lines of JSON: each line on stdin is a command, each line on stdout its result.

Run by `llama.py` with the Python of the bench-only environment (see README.md); it imports nothing of Shammah. It knows
how to make a Q8_0 file, open it for a number of sequences, and time their greedy decoding through the batch API.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

PAD = 256  # llama.cpp rounds the context of a sequence up to this


@llama_cpp.llama_log_callback
def _discard(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """Take a log line of llama.cpp; nobody reads it."""


@dataclass
class Opened:
    """A loaded model and a context for a fixed number of sequences."""

    model: Any
    context: Any
    sequences: int
    vocab: int


class Batch:
    """A `llama_batch` whose arrays are written through numpy."""

    def __init__(self, size: int) -> None:
        self._batch = llama_cpp.llama_batch_init(size, 0, 1)
        self.tokens = np.ctypeslib.as_array(self._batch.token, (size,))
        self._positions = np.ctypeslib.as_array(self._batch.pos, (size,))
        self._counts = np.ctypeslib.as_array(self._batch.n_seq_id, (size,))
        self._wanted = np.ctypeslib.as_array(self._batch.logits, (size,))

    def fill(self, place: int, token: int, *, position: int, sequence: int, wanted: bool) -> None:
        """Put one token in its place."""
        self.tokens[place] = token
        self._positions[place] = position
        self._counts[place] = 1
        self._batch.seq_id[place][0] = sequence
        self._wanted[place] = wanted

    def advance(self, count: int) -> None:
        """Move the first `count` tokens one position on."""
        self._positions[:count] += 1

    def decode(self, context: Any, count: int) -> None:
        """Compute the first `count` tokens."""
        self._batch.n_tokens = count
        code = llama_cpp.llama_decode(context, self._batch)
        if code:
            raise RuntimeError(f"llama_decode returned {code}")

    def close(self) -> None:
        """Free the arrays."""
        llama_cpp.llama_batch_free(self._batch)


def quantise(source: str, target: str, threads: int) -> None:
    """Write `source` again with every matrix as Q8_0."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    params.allow_requantize = True
    params.nthread = threads
    code = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
    if code:
        raise RuntimeError(f"llama_model_quantize returned {code}")


def open_model(command: dict[str, Any]) -> Opened:
    """Load a GGUF; `context` is the room of one sequence in tokens."""
    model_params = llama_cpp.llama_model_default_params()
    model_params.use_extra_bufts = command["repack"]
    model = llama_cpp.llama_model_load_from_file(command["path"].encode(), model_params)
    params = llama_cpp.llama_context_default_params()
    sequences = command["sequences"]
    room = -(-command["context"] // PAD) * PAD
    params.n_ctx = room * sequences
    params.n_seq_max = sequences
    params.n_batch = max(512, sequences)
    params.n_ubatch = command["ubatch"]
    params.n_threads = params.n_threads_batch = command["threads"]
    enabled, disabled = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED, llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.flash_attn_type = enabled if command["flash"] else disabled
    params.kv_unified = command["unified"]
    context = llama_cpp.llama_init_from_model(model, params) if model else None
    if context is None:
        raise RuntimeError(f"llama.cpp can't open {command}")
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    return Opened(model, context, sequences, vocab)


def pick(opened: Opened, rows: int) -> npt.NDArray[np.int64]:
    """Return the likeliest token of each row of the last computation, int64 `[rows]`."""
    pointer = llama_cpp.llama_get_logits(opened.context)
    return np.ctypeslib.as_array(pointer, (rows, opened.vocab)).argmax(axis=1)


def decode(opened: Opened, prompts: Sequence[Sequence[int]], tokens: int) -> dict[str, Any]:
    """Compute the prompts one by one, then decode all sequences together, greedily, to `tokens` new tokens each.

    The first new token comes from the prompts, so `tokens - 1` steps are timed, the choice by argmax included;
    `choose_s` is that choice alone.
    """
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(opened.context), True)
    count = len(prompts)
    batch = Batch(max(count, *map(len, prompts)))
    answers = [_prefill(opened, batch, prompt, sequence) for sequence, prompt in enumerate(prompts)]
    chosen = np.array([answer[0] for answer in answers])
    for sequence, prompt in enumerate(prompts):
        batch.fill(sequence, 0, position=len(prompt), sequence=sequence, wanted=True)
    choose_s = 0.0
    begun = time.perf_counter()
    for _ in range(tokens - 1):
        batch.tokens[:count] = chosen
        batch.decode(opened.context, count)
        # The computation may still run when llama_decode returns; reading the logits waits for it.
        llama_cpp.llama_synchronize(opened.context)
        ready = time.perf_counter()
        chosen = pick(opened, count)
        choose_s += time.perf_counter() - ready
        batch.advance(count)
        for answer, token in zip(answers, chosen, strict=True):
            answer.append(int(token))
    seconds = time.perf_counter() - begun
    batch.close()
    made = count * (tokens - 1)
    return {
        "tokens_per_s": made / seconds,
        "without_choosing": made / (seconds - choose_s),
        "choose_s": choose_s,
        "answers": answers,
    }


def _prefill(opened: Opened, batch: Batch, prompt: Sequence[int], sequence: int) -> list[int]:
    last = len(prompt) - 1
    for place, token in enumerate(prompt):
        batch.fill(place, token, position=place, sequence=sequence, wanted=place == last)
    batch.decode(opened.context, len(prompt))
    return [int(pick(opened, 1)[0])]


def main() -> None:
    """Serve commands until stdin ends."""
    llama_cpp.llama_log_set(_discard, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    opened: dict[str, Opened] = {}
    for line in sys.stdin:
        command = json.loads(line)
        name = command.get("name", "")
        result: dict[str, Any] = {}
        match command["do"]:
            case "describe":
                result = {"version": llama_cpp.__version__, "system": llama_cpp.llama_print_system_info().decode()}
            case "quantise":
                quantise(command["source"], command["target"], command["threads"])
            case "open":
                opened[name] = open_model(command)
            case "decode":
                result = decode(opened[name], command["prompts"], command["tokens"])
            case "close":
                gone = opened.pop(name)
                llama_cpp.llama_free(gone.context)
                llama_cpp.llama_model_free(gone.model)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
