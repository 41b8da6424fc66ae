"""Our own CUDA operators on a GPU: built, checked one by one and in a whole model, profiled, measured.

Each part is a process of its own with a time limit, so that one which fails or hangs leaves the others alone; a table
ends the output. Needs nvcc, onnxruntime-gpu, torch, transformers; onnxruntime-genai-cuda for the peer. Run:
`python tests/bench/generator_gpu_check.py --tokenizer tokenizer.json --out FOLDER`, or one part with `--part`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from generator_gpu import ROOT, make_folder, make_prompts  # noqa: E402  (puts the services on the path)

SECONDS = {"build": 120, "kernels": 150, "model": 200, "rates": 200, "profile": 120, "figures": 300}
VARIANTS: dict[str, dict[str, Any] | None] = {
    "stock": None,
    "fused": {"few": 4, "early": True},
    "fused, late": {"few": 4, "early": False},
    "fused, few 8": {"few": 8, "early": True},
    "fused, few 0": {"few": 0, "early": True},
}
BATCHES = (1, 2, 3, 4, 5, 8, 32, 256)
Report = Callable[[str, object], None]


def main() -> None:
    """Run one part, or all of them one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/generator_gpu"))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--parts", default=",".join(SECONDS), help="which, when all are run")
    parser.add_argument("--part", choices=tuple(SECONDS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table = options.out / "check.jsonl"
    if options.part:
        PARTS[options.part](options, partial(write_row, table, options.part))
        return
    for part in options.parts.split(","):
        print(f"== {part}", flush=True)
        start = time.perf_counter()
        try:
            code = subprocess.run([sys.executable, *sys.argv, "--part", part], timeout=SECONDS[part]).returncode
        except subprocess.TimeoutExpired:
            code = -1
        write_row(table, part, "exit code", code)
        write_row(table, part, "seconds", round(time.perf_counter() - start, 1))
    print("== table", flush=True)
    for line in table.read_text().splitlines():
        print("  ".join(str(value) for value in json.loads(line)))


def write_row(table: Path, part: str, name: str, value: object) -> None:
    with table.open("a") as file:
        file.write(json.dumps([part, name, value]) + "\n")
    print("  ", name, value, flush=True)


def prepare(options: argparse.Namespace) -> Path:
    folder: Path = options.work / "model"
    if not (folder / "tokenizer.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_folder(folder, options.tokenizer)
    return folder


def find_library() -> Path:
    from shammah_generator.native_cuda import find_cuda_library

    library = find_cuda_library()
    if library is None:
        raise SystemExit("there is no library: part build comes first")
    return library


# -- build


def build(options: argparse.Namespace, report: Report) -> None:
    from shammah_generator.native_cuda import build_cuda_library, find_compiler, read_capability

    capability = read_capability()
    report("capability, compiler", [capability, find_compiler()])
    start = time.perf_counter()
    report("library", str(build_cuda_library(capability or 90)))
    report("nvcc seconds", round(time.perf_counter() - start, 1))
    prepare(options)


# -- kernels


def run_poisoned(library: Path, kind: str, inputs: list[np.ndarray], **attributes: float) -> list[np.ndarray]:
    """Run one operator on the GPU, twice, into outputs that were full of NaN; the second run must be as the first."""
    import onnxruntime as ort
    from support.emulating import open_operator, run_operator

    provider = "CUDAExecutionProvider"
    free = run_operator(library, kind, inputs, provider=provider, **attributes)
    session = open_operator(library, kind, inputs, [provider], **attributes)
    binding, made = session.io_binding(), []
    for number, array in enumerate(inputs):
        binding.bind_ortvalue_input(f"i{number}", ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
    for number, array in enumerate(free):
        poison = np.full(array.shape, np.nan if array.dtype.kind == "f" else -77, array.dtype)
        made.append(ort.OrtValue.ortvalue_from_numpy(poison, "cuda", 0))
        binding.bind_ortvalue_output(f"o{number}", made[-1])
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
    found = [value.numpy() for value in made]
    if not np.array_equal(found[0], free[0], equal_nan=True):
        print("   two runs differ by", np.abs(found[0].astype(np.float64) - free[0]).max(), kind, attributes)
    return found


def worst(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, in units of the largest value; infinite where what is no number differs."""
    if not np.array_equal(np.isnan(found), np.isnan(wanted)):
        return float("inf")
    apart = np.nan_to_num(np.abs(found.astype(np.float64) - wanted))
    return float(apart.max() / max(1.0, np.nan_to_num(np.abs(wanted)).max()))


def check_kernels(options: argparse.Namespace, report: Report) -> None:
    library = find_library()
    for name, check in (("products", check_products), ("attention", check_attention), ("readout", check_readout)):
        try:
            check(library, report)
        except Exception:
            traceback.print_exc()
            report(name, "FAILED")


def draw(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) / 4).astype(np.float16)


def check_products(library: Path, report: Report) -> None:
    from support import kernels

    hidden, inner, vocab = 576, 1536, 49152
    gain, wide, table = draw(1, hidden), draw(2, 2 * inner, hidden), draw(3, vocab, hidden)
    down, packed = draw(4, hidden, inner), draw(5, 960, hidden)
    for few in (0, 8):
        for rows in BATCHES:
            x, long, residual = draw(6, rows, 1, hidden), draw(7, rows, 1, inner), draw(8, rows, 1, hidden)
            x[rows // 2, 0, 3] = np.nan if rows > 2 else x[rows // 2, 0, 3]
            normed, common = kernels.normalise(x, gain), {"few": few, "early": 1}
            norm = {**common, "epsilon": kernels.EPSILON}
            apart = {
                "qkv": worst(
                    run_poisoned(library, "NormLinear", [x, gain, packed], **norm)[0], kernels.multiply(normed, packed)
                ),
                "gates": worst(
                    run_poisoned(library, "NormSwiglu", [x, gain, wide], **norm)[0],
                    kernels.gate(kernels.multiply(normed, wide)),
                ),
                "down": worst(
                    run_poisoned(library, "AddLinear", [long, down, residual], **common)[0],
                    kernels.multiply(long, down) + residual,
                ),
                "head": worst(
                    run_poisoned(library, "NormHead", [x, gain, table], **norm)[0],
                    kernels.multiply(normed, table)[:, -1],
                ),
            }
            bad = [name for name, value in apart.items() if not value < 4e-3]
            report(f"products, few {few}, rows {rows}", f"worst {max(apart.values()):.1e} {bad or 'ok'}")


def check_attention(library: Path, report: Report) -> None:
    from support import kernels

    cases = [(9, 3, 64, batch, 1, 300) for batch in BATCHES] + [
        (9, 3, 64, 1, 64, 80),
        (9, 3, 64, 1, 1000, 1024),
        (9, 3, 64, 4, 1, 1072),
        (32, 8, 128, 2, 1, 77),
        (32, 8, 128, 40, 1, 77),
        (16, 16, 128, 40, 1, 33),
        (4, 2, 16, 3, 5, 20),
        (8, 2, 48, 9, 1, 33),
        (8, 1, 256, 40, 1, 21),
    ]
    for heads, kv_heads, size, batch, tokens, room in cases:
        random = np.random.default_rng(0)
        lengths = random.integers(tokens - 1, room, batch).astype(np.int32)
        lengths[-1], lengths[0] = tokens - 1, room - 1
        angles = random.standard_normal((room, size // 2))
        cos, sin = np.cos(angles).astype(np.float16), np.sin(angles).astype(np.float16)
        keys, values = (random.standard_normal((batch, kv_heads, room, size)).astype(np.float16) for _ in range(2))
        for row, length in enumerate(lengths):
            keys[row, :, length + 1 - tokens :] = values[row, :, length + 1 - tokens :] = np.nan
        qkv = random.standard_normal((batch, tokens, (heads + 2 * kv_heads) * size)).astype(np.float16)
        inputs = [qkv, lengths, cos, sin, keys, values]
        made = run_poisoned(library, "DecodeAttention", inputs, heads=heads, early=1)
        wanted = kernels.attend(*inputs)
        apart = [worst(found, right) for found, right in zip(made, wanted, strict=True)]
        name = f"attention, {heads}/{kv_heads} heads of {size}, {batch} rows, {tokens} tokens, room {room}"
        report(name, f"worst {max(apart):.1e} {'ok' if max(apart) < 4e-3 else apart}")


def check_readout(library: Path, report: Report) -> None:
    from support import kernels

    for rows in BATCHES:
        logits = (np.random.default_rng(rows).standard_normal((rows, 49152)) * 4).astype(np.float32)
        lengths = np.arange(13, 13 + rows, dtype=np.int32)
        ring = np.zeros((32, rows, 4), np.float32)
        if rows > 2:
            logits[1, 40000] = np.nan
        ids, counted, written, _ = run_poisoned(library, "ReadLogits", [logits, lengths, ring], early=1)
        kept = np.array([row for row in range(rows) if rows <= 2 or row != 1])
        wanted = kernels.read(logits[kept])
        apart = worst(written[13][kept, 1:], wanted[:, 1:])
        right = (ids[kept, 0] == wanted[:, 0]).all() and (counted == lengths + 1).all()
        noticed = rows <= 2 or np.isnan(written[13, 1, 1])
        report(f"readout, rows {rows}", f"worst {apart:.1e} {'ok' if right and noticed and apart < 1e-4 else 'WRONG'}")


# -- model


def open_variant(folder: Path, variant: str, *, slots: int) -> Any:
    from shammah_generator import cuda_fused, cuda_model

    settings = VARIANTS[variant]
    if settings is None:
        cuda_model.find_cuda_library = lambda: None  # type: ignore[assignment]
    else:
        library = find_library()
        cuda_model.find_cuda_library = lambda: library  # type: ignore[assignment]
        cuda_model.build_fused_graph = partial(cuda_fused.build_fused_graph, **settings)  # type: ignore[assignment]
    return cuda_model.CudaModel.load(folder, precision="fp16", threads=4, slots=slots, context=1024)


def check_model(options: argparse.Namespace, report: Report) -> None:
    from generator_gpu import compare_with_torch

    folder, answers = prepare(options), {}
    for variant in VARIANTS:
        try:
            model = open_variant(folder, variant, slots=256)
            report(
                f"{variant}: to fp32 PyTorch", {k: round(v, 5) for k, v in compare_with_torch(folder, model).items()}
            )
            answers[variant] = decode_some(model)
            report(f"{variant}: alone and among 2, 5, 40, 256", compare_rows(answers[variant]))
            model.close()
        except Exception:
            traceback.print_exc()
            report(variant, "FAILED")
    for variant, found in answers.items():
        if "stock" in answers:
            same = np.mean([a == b for a, b in zip(found[256][0], answers["stock"][256][0], strict=True)])
            report(f"{variant}: rows of 256 with the tokens of stock", round(float(same), 4))


def decode_some(model: Any, steps: int = 32) -> dict[int, tuple[list[list[int]], np.ndarray]]:
    """Tokens and log-probabilities of greedy rows in batches of several sizes; row 0 is the same in all."""
    answers = {}
    for count in (1, 2, 5, 40, 256):
        for slot, prompt in enumerate(make_prompts(count)):
            model.prefill(model.slots, list(prompt[: 64 - slot % 23]))
            model.move(model.slots, slot)
        ids, tokens, logprobs = [7] * count, [[] for _ in range(count)], []
        for _ in range(steps // 16):
            scores = model.decode(ids, steps=16, more=True)
            ids = [row[-1] for row in scores.tokens]
            tokens = [[*old, *new] for old, new in zip(tokens, scores.tokens, strict=True)]
            logprobs.append(np.array(scores.logprobs))
        answers[count] = (tokens, np.concatenate(logprobs, 1))
        model.keep(0)
        model._ahead = None
    return answers


def compare_rows(answers: dict[int, tuple[list[list[int]], np.ndarray]]) -> list[str]:
    """Of row 0: tokens in common before the first difference, and how far log-probabilities are apart until then."""
    (alone, *_), logprobs = answers[1]
    told = []
    for count, (tokens, others) in answers.items():
        pairs = list(zip(alone, tokens[0], strict=True))
        common = next((place for place, (a, b) in enumerate(pairs) if a != b), len(pairs))
        apart = float(np.abs(logprobs[0, :common] - others[0, :common]).max()) if common else 0.0
        finite = bool(np.isfinite(others).all())
        told.append(f"{count}: {common}/{len(pairs)} tokens, {apart:.4f} nats{'' if finite else ', NOT FINITE'}")
    return told


# -- rates and profile


def fill_slots(model: Any) -> float:
    """Compute a prompt in every slot; returns the seconds of one prompt."""
    prompts = make_prompts(model.slots)
    model.prefill(model.slots, list(prompts[0]))
    start = time.perf_counter()
    for slot, prompt in enumerate(prompts):
        model.prefill(model.slots, list(prompt))
        model.move(model.slots, slot)
    return (time.perf_counter() - start) / len(prompts)


def time_steps(model: Any, count: int, calls: int) -> float:
    """Seconds of a step of `count` rows, without the engine, at contexts from 64 on."""
    model._lengths[: model.slots] = 64
    ids = [7] * count
    for _ in range(3):
        ids = [row[-1] for row in model.decode(ids, steps=16, more=True).tokens]
    start = time.perf_counter()
    for _ in range(calls):
        ids = [row[-1] for row in model.decode(ids, steps=16, more=True).tokens]
    seconds = (time.perf_counter() - start) / calls / 16
    model._ahead = None
    return seconds


def measure_rates(options: argparse.Namespace, report: Report) -> None:
    folder = prepare(options)
    for variant in VARIANTS:
        try:
            model = open_variant(folder, variant, slots=256)
            report(f"{variant}: ms a prompt of 64", round(fill_slots(model) * 1e3, 3))
            for count in (1, 2, 4, 8, 32, 256):
                times = [time_steps(model, count, 10) for _ in range(3)]
                best, most = min(times), max(times)
                report(
                    f"{variant}: step of {count}",
                    f"{best * 1e3:.3f} to {most * 1e3:.3f} ms, {count / best:.0f} tokens/s",
                )
            model.close()
        except Exception:
            traceback.print_exc()
            report(variant, "FAILED")


def profile(options: argparse.Namespace, report: Report) -> None:
    import torch
    from torch.profiler import ProfilerActivity

    folder = prepare(options)
    torch.zeros(1).cuda()
    for variant in ("fused", "stock"):
        model = open_variant(folder, variant, slots=256)
        fill_slots(model)
        for count in (1, 256):
            time_steps(model, count, 2)
            torch.cuda.synchronize()
            with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as profiler:
                time_steps(model, count, 1)
            # Three calls to warm up, one that is timed, one ahead that nobody asks for: 16 steps each.
            steps = 5 * 16
            rows = sorted(profiler.key_averages(), key=lambda row: -row.device_time_total)
            total = sum(row.device_time_total for row in rows)
            report(f"{variant}: kernels' time in a step of {count}", f"{total / steps:.1f} us")
            for row in rows[:14]:
                each = row.device_time_total / max(1, row.count)
                counted = f"{row.count / steps:7.2f} x {each:6.2f}"
                print(f"     {row.device_time_total / steps:8.1f} us  {counted}  {row.key[:90]}")
        model.close()


def measure_figures(options: argparse.Namespace, report: Report) -> None:
    prepare(options)
    command = [sys.executable, str(ROOT / "tests/bench/generator_gpu.py"), "--part", "engine"]
    paths = ["--tokenizer", str(options.tokenizer), "--out", str(options.out), "--work", str(options.work)]
    subprocess.run([*command, *paths, "--repeat", str(options.repeat)], check=True)
    for figure in json.loads((options.out / "generator_gpu.json").read_text())["figures"]:
        report(figure["id"], [round(figure["value"], 5), figure["unit"], figure.get("note", "")])


PARTS: dict[str, Callable[[argparse.Namespace, Report], None]] = {
    "build": build,
    "kernels": check_kernels,
    "model": check_model,
    "rates": measure_rates,
    "profile": profile,
    "figures": measure_figures,
}

if __name__ == "__main__":
    main()
