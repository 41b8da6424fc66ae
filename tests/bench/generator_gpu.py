"""The generator on one NVIDIA GPU: one stream against onnxruntime-genai, 256 streams, and the same through gRPC.

Needs onnxruntime-gpu, torch and transformers; onnxruntime-genai-cuda for the peer. The model has the shape of
SmolLM2-135M and random weights: speed does not depend on their values, and no answer is judged here but by comparison
with PyTorch. Run, once
for each part: `python tests/bench/generator_gpu.py --part engine --tokenizer tokenizer.json --out FOLDER`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("services/generator", "services/chassis", "protos/gen", "tests/bench")]

PROMPT, CONTEXT = 64, 1024
SIZES = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
}


def make_folder(folder: Path, tokenizer: Path) -> Path:
    """Write the random model in Hugging Face format."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**SIZES, rope_theta=100000.0, bos_token_id=1, eos_token_id=2, initializer_range=0.05)
    LlamaForCausalLM(config).save_pretrained(folder)
    shutil.copy(tokenizer, folder / "tokenizer.json")
    # What transformers needs to export for the peer; ours reads tokenizer.json alone.
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (folder / "generation_config.json").write_text('{"eos_token_id": 2, "pad_token_id": 2, "bos_token_id": 1}')
    return folder


def make_prompts(count: int, length: int = PROMPT) -> list[tuple[int, ...]]:
    random = np.random.default_rng(0)
    return [tuple(int(token) for token in row) for row in random.integers(100, 40000, (count, length))]


def open_engine(folder: Path, *, slots: int, context: int = CONTEXT, chunk_tokens: int = 64) -> tuple[Any, Any]:
    from shammah_generator.engine import Engine
    from shammah_generator.models import load_model

    model = load_model(folder, precision="fp16", threads=4, slots=slots, context=context)
    engine = Engine(model, queue_limit=4 * slots, chunk_tokens=chunk_tokens)
    engine._ends = frozenset()  # random weights end their turn at random: every response has its full length
    return model, engine


def compare_with_torch(folder: Path, model: Any) -> dict[str, float]:
    """KL and top-1 agreement of the served fp16 graph to fp32 PyTorch, on random prompts."""
    import torch
    from transformers import LlamaForCausalLM

    reference = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).cuda().eval()
    kl, same = [], []
    with torch.no_grad():
        for prompt in make_prompts(8):
            found = torch.tensor(np.asarray(model.prefill(model.slots, list(prompt)).logits(0))).log_softmax(-1)
            wanted = reference(torch.tensor([prompt]).cuda()).logits[0, -1].cpu().log_softmax(-1)
            kl.append(float((wanted.exp() * (wanted - found)).sum()))
            same.append(float(found.argmax() == wanted.argmax()))
        rows = make_prompts(3)
        for slot, prompt in enumerate(rows):
            model.prefill(model.slots, list(prompt))
            model.move(model.slots, slot)
        scores = model.decode([7, 8, 9], steps=8)
        for row, prompt in enumerate(rows):
            ids = [*prompt, row + 7, *scores.tokens[row][:-1]]
            wanted = reference(torch.tensor([ids]).cuda()).logits[0, PROMPT:].cpu().log_softmax(-1)
            same += [float(a == b) for a, b in zip(wanted.argmax(-1).tolist(), scores.tokens[row], strict=True)]
            kl += (wanted.max(-1).values - torch.tensor(scores.logprobs[row])).abs().tolist()
    del reference
    return {"kl": float(np.mean(kl)), "top1": float(np.mean(same))}


def measure_rate(engine: Any, *, streams: int, tokens: int) -> float:
    """Tokens a second of all streams together, from the moment when all decode to the first end."""
    from shammah_generator.requests import Request
    from shammah_generator.sampling import Sampling

    started, ended = [0] * streams, [False]
    marks: list[tuple[float, int]] = []
    handles = []

    def watch(index: int) -> Callable[[Any], None]:
        def take(chunk: Any) -> None:
            started[index] = 1
            if chunk.finish is not None:
                ended[0] = True
                if chunk.finish.error is not None:
                    print("a stream failed:", chunk.finish.error.message, flush=True)

        return take

    for index, prompt in enumerate(make_prompts(streams)):
        request = Request(prompt_ids=prompt, sampling=Sampling(max_tokens=tokens))
        handles.append(engine.submit(request, watch(index)))
    while not ended[0]:
        if sum(started) == streams:
            marks.append((time.perf_counter(), engine.tokens_generated))
        time.sleep(0.002)
    for handle in handles:
        handle.cancel()
    while engine.active or engine.queued:
        time.sleep(0.01)
    steady = marks[len(marks) // 10 : -max(2, len(marks) // 10)]
    (start, first), (end, last) = steady[0], steady[-1]
    return (last - first) / (end - start)


def measure_whole(engine: Any, *, requests: int, tokens: int) -> float:
    """Tokens a second of a queue of requests, prompts included."""
    from shammah_generator.requests import Request
    from shammah_generator.sampling import Sampling

    wanted = [Request(prompt_ids=row, sampling=Sampling(max_tokens=tokens)) for row in make_prompts(requests)]
    start = time.perf_counter()
    made = engine.generate_batch(wanted)
    return sum(len(one.token_ids) for one in made) / (time.perf_counter() - start)


class Peer:
    """onnxruntime-genai with a CUDA graph, exported from the same folder."""

    def __init__(self, folder: Path, out: Path) -> None:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", str(folder), "-o", str(out)]
        options = ["-p", "fp16", "-e", "cuda", "-c", str(out / "cache"), "--extra_options", "enable_cuda_graph=1"]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        import onnxruntime_genai

        self._genai = onnxruntime_genai
        self._model = onnxruntime_genai.Model(str(out))

    def measure(self, *, tokens: int) -> float:
        params = self._genai.GeneratorParams(self._model)
        params.set_search_options(max_length=PROMPT + tokens, min_length=PROMPT + tokens, batch_size=1, do_sample=False)
        generator = self._genai.Generator(self._model, params)
        generator.append_tokens(np.array(make_prompts(1)[0], np.int32))
        generator.generate_next_token()
        start = time.perf_counter()
        made = 0
        while made < tokens - 2 and not generator.is_done():
            generator.generate_next_token()
            made += 1
        return made / (time.perf_counter() - start)


def main() -> None:
    """Measure and write `generator_gpu.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/generator_gpu"))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--part", choices=("engine", "grpc"), required=True, help="one a process; figures are merged")
    options = parser.parse_args()
    folder = options.work / "model"
    if not folder.exists():
        folder.mkdir(parents=True)
        make_folder(folder, options.tokenizer)
    figures = (
        measure_engine(folder, options) if options.part == "engine" else measure_grpc_share(folder, options.repeat)
    )
    import onnxruntime
    import torch

    record = {
        "command": "python " + " ".join(sys.argv),
        "machine": f"{torch.cuda.get_device_name(0)}, onnxruntime-gpu {onnxruntime.__version__}",
        "date": datetime.date.today().isoformat(),
        "figures": figures,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "generator_gpu.json"
    if path.exists():
        made = {figure["id"] for figure in figures}
        before = json.loads(path.read_text())["figures"]
        record["figures"] = [figure for figure in before if figure["id"] not in made] + figures
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def measure_engine(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    start = time.perf_counter()
    model, engine = open_engine(folder, slots=256)
    loaded = time.perf_counter() - start
    parity = compare_with_torch(folder, model)
    print("parity", parity, "load", round(loaded, 2), flush=True)
    figures: list[dict[str, Any]] = [
        {
            "id": "gpu_kl_random",
            "value": parity["kl"],
            "unit": "nats",
            "note": "fp16 graph to fp32 PyTorch, random weights",
        },
        {"id": "gpu_top1_random", "value": parity["top1"], "unit": "share", "note": "the same; 32 positions"},
        {"id": "gpu_load_s", "value": loaded, "unit": "s", "note": "safetensors on disk to a ready model"},
    ]
    peer = open_peer(folder, options.work / "genai")
    ours1, theirs1, many = [], [], []
    measure_rate(engine, streams=1, tokens=64)
    measure_rate(engine, streams=256, tokens=288)
    for number in range(options.repeat):
        ours1.append(measure_rate(engine, streams=1, tokens=512))
        if peer is not None:
            theirs1.append(peer.measure(tokens=512))
        many.append(measure_rate(engine, streams=256, tokens=288))
        print("repetition", number, ours1[-1], theirs1[-1:], many[-1], flush=True)
    whole = statistics.median(measure_whole(engine, requests=1024, tokens=128) for _ in range(options.repeat))
    engine.close(1)
    model.close()
    one = statistics.median(ours1)
    if theirs1:
        figures.append(compare_with_peer(ours1, theirs1))
    figures += [
        {"id": "gpu_decode1_tok_s", "value": one, "unit": "tokens/s"},
        {"id": "gpu_decode256_tok_s", "value": statistics.median(many), "unit": "tokens/s", "note": spread(many)},
        {
            "id": "gpu_whole256_tok_s",
            "value": whole,
            "unit": "tokens/s",
            "note": "1,024 requests of 64 prompt and 128 new tokens on 256 slots, prompts included",
        },
    ]
    return figures


def compare_with_peer(ours1: list[float], theirs1: list[float]) -> dict[str, Any]:
    """The figure of one stream beside the peer's, tokens/s of each repetition of both."""
    ratios = [ours / theirs for ours, theirs in zip(ours1, theirs1, strict=True)]
    return {
        "id": "gpu_decode1_vs_genai",
        "value": statistics.median(ratios),
        "unit": "ratio",
        "peer": "onnxruntime-genai CUDA, CUDA graph, fp16, tokens/s",
        "peer_value": statistics.median(theirs1),
        "note": f"ours {statistics.median(ours1):.0f} tokens/s; ratios {min(ratios):.2f} to {max(ratios):.2f}",
    }


def spread(values: list[float]) -> str:
    return f"{len(values)} repetitions, {min(values):.0f} to {max(values):.0f}"


def open_peer(folder: Path, out: Path) -> Peer | None:
    try:
        return Peer(folder, out)
    except (ImportError, subprocess.CalledProcessError) as error:
        print("no peer:", error, flush=True)
        return None


def measure_grpc_share(folder: Path, repeat: int) -> list[dict[str, Any]]:
    """256 streams through gRPC, clients in processes of their own, against the engine alone; the same chunks."""
    from generator_gpu_grpc import measure_grpc

    shares, alone, through = [], [], []
    model, engine = open_engine(folder, slots=256)
    measure_rate(engine, streams=1, tokens=64)
    measure_rate(engine, streams=256, tokens=800)
    for _ in range(repeat):
        alone.append(measure_rate(engine, streams=256, tokens=800))
        through.append(measure_grpc(engine, make_prompts(1)[0], streams=256, tokens=800))
        shares.append(through[-1] / alone[-1])
        print("grpc", alone[-1], through[-1], flush=True)
    engine.close(1)
    model.close()
    return [
        {
            "id": "gpu_grpc256_vs_engine",
            "value": statistics.median(shares),
            "unit": "ratio",
            "note": f"through gRPC {statistics.median(through):.0f} tokens/s, engine {statistics.median(alone):.0f}; "
            f"64 tokens a message; {spread(through)}",
        }
    ]


if __name__ == "__main__":
    main()
