"""How fast the generator learns on the device that is here: examples a second, one example a step against batches.

    python tests/bench/learning_speed.py pack --out ROWS.jsonl.gz         (where ../shared/data is)
    python tests/bench/learning_speed.py speed --rows ROWS.jsonl.gz --base FOLDER --out OUT.json
    python tests/bench/learning_speed.py online --rows ROWS.jsonl.gz --base FOLDER --out OUT.json --seconds 40
    python tests/bench/learning_speed.py round --rows ROWS.jsonl.gz --base FOLDER --out OUT.json

`speed`: one fine-tuning over all rows for each setting (`--batch-tokens 8192 16384` tries both). `online`: seconds of
training to the same exact-match share of exam rows, one example a step and batched, each at its best rate of a grid.
`round`: the generator's part of a round of 50 rows. `--profile`: where the time of a step goes. `--tell FILE`: where
the compiler's time went; the seconds of each part of a fine-tuning are in OUT, as `timings` (`blocks_*`, `loss_*`: of
the processes that compile beside it, `given` and `fill`: until they had the plan, until both were done); its `notes`
say whether the caches were hit. Where TORCHINDUCTOR_CACHE_DIR is an empty folder, the first run is cold and the next
one warm.

As where a study is taught, `speed` starts these processes before rows are read and encoded and weights are loaded (for
further settings: before the weights). `fine_tune_seconds`, and so `train_ex_s_with_preparing_and_evaluating`, begin
later, with `fine_tune`: `started_seconds_before` says by how much, and so how much of what the processes do is not in
that time; null: none were begun ahead. `--late` begins none ahead: `fine_tune` starts its own.

`--base` is a folder in Hugging Face format, `--made` stands for one with random weights of its shapes. Needs torch,
transformers, tokenizers and the tree; no data beside ROWS.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_PARTS = ("services/trainer", "services/generator", "services/chassis", "protos/gen", "tests/bench")
sys.path[:0] = [str(ROOT / part) for part in _PARTS]

import torch  # noqa: E402
from shammah_chassis.examples import Message  # noqa: E402
from shammah_generator.chat import encode_examples, load_tokenizer  # noqa: E402
from shammah_trainer.batches import SftRow  # noqa: E402
from shammah_trainer.cache_filler import CacheFiller  # noqa: E402
from shammah_trainer.fill_ahead import compiles_behind, fill_ahead, guess_tokens, read_size  # noqa: E402
from shammah_trainer.processes import Processes  # noqa: E402
from shammah_trainer.sft import SftHyper, evaluate_rows, fine_tune  # noqa: E402
from shammah_trainer.student import Student, load_student  # noqa: E402

DATA = ROOT.parent / "shared" / "data" / "workload"
BASE = Path("~/.cache/shammah/base/generator").expanduser()


def pack(out: Path) -> None:
    """Write family, query and response of all train rows, the answer with its working where the family has one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with gzip.open(out, "wt", encoding="utf-8") as file:
        for path in sorted(DATA.glob("*.train.jsonl.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                for line in lines:
                    row = json.loads(line)
                    answer = row["metadata"].get("teacher_answer") or row["reference"]
                    answer = answer if isinstance(answer, str) else json.dumps(answer)
                    family = path.name.split(".", 1)[0]
                    file.write(json.dumps({"family": family, "query": row["query"], "response": answer}) + "\n")
                    count += 1
    print(f"{out}: {count} rows, {out.stat().st_size / 1e6:.1f} MB")


def read_rows(path: Path, *, most: int, families: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Return (query, response) in a fixed random order."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    rows = [row for row in rows if not families or row["family"] in families]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    return [(rows[at]["query"], rows[at]["response"]) for at in order[: most or None]]


def encode(pairs: list[tuple[str, str]], base: Path) -> list[SftRow]:
    """Encode rows as the trainer does."""
    tokenizer = load_tokenizer(base / "tokenizer.json")
    found = encode_examples(tokenizer, [((Message("user", query),), response) for query, response in pairs])
    return [SftRow(tuple(ids), tuple(mask)) for ids, mask in found]


def load(options: argparse.Namespace) -> Student:
    return load_student(options.base, device=torch.device(options.device))


def make_base(base: Path, out: Path) -> Path:
    """Write a generator with random weights into `out` from the `config.json` and `tokenizer.json` of `base`."""
    import shutil

    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(base / name, out / name)
    torch.manual_seed(0)
    config = json.loads((base / "config.json").read_text("utf-8"))
    state = LlamaForCausalLM(LlamaConfig.from_dict(config)).state_dict()
    tied = bool(config.get("tie_word_embeddings"))
    save_file(
        {k: v.contiguous() for k, v in state.items() if not (tied and k == "lm_head.weight")}, out / "model.safetensors"
    )
    return out


def tell_compiler(path: Path) -> None:
    """Write what torch.compile says of its own time."""
    from torch._dynamo.utils import compile_times

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(compile_times(repr="str", aggregate=True)) + "\n", "utf-8")


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure_speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run one fine-tuning for each batch size and rate; the last thousand rows are the exam."""
    figures: list[dict[str, Any]] = []
    rows: _Rows | None = None
    for tokens in options.batch_tokens:
        for rate in options.learning_rate:
            hyper = _hyper(options, tokens, rate)
            print(f"{tokens} tokens a batch, rate {rate:g}", flush=True)
            with _fill_ahead(options, hyper) as filler:
                rows = rows or _prepare_rows(options)
                figure = _run_once(options, hyper, rows, filler) | rows.seconds
            print(json.dumps(figure, indent=1), flush=True)
            figures.append(figure)
    return figures


class _Rows(NamedTuple):
    """Encoded rows, and the seconds that they took."""

    train: list[SftRow]
    exam: list[SftRow]
    seconds: dict[str, float]


def _prepare_rows(options: argparse.Namespace) -> _Rows:
    began = time.monotonic()
    pairs = read_rows(options.rows, most=options.count)
    read_seconds = time.monotonic() - began
    rows = encode(pairs, options.base)
    encode_seconds = time.monotonic() - began - read_seconds
    exam = rows[-min(1000, len(rows) // 10) :]
    seconds = {"read_seconds": round(read_seconds, 2), "encode_seconds": round(encode_seconds, 2)}
    return _Rows(rows if options.all_rows else rows[: -len(exam)], exam, seconds)


def _fill_ahead(options: argparse.Namespace, hyper: SftHyper) -> AbstractContextManager[CacheFiller | None]:
    """Begin the processes that compile as the offline driver does, by the size of the file that is still to be read."""
    device, tokens = torch.device(options.device), guess_tokens(read_size(options.rows), hyper)
    return fill_ahead(device, wanted=not options.late and compiles_behind(hyper, device, tokens=tokens))


def _run_once(options: argparse.Namespace, hyper: SftHyper, rows: _Rows, filler: CacheFiller | None) -> dict[str, Any]:
    train, exam, _ = rows
    began = time.monotonic()
    student = load(options)
    synchronize()
    load_seconds = time.monotonic() - began
    if student.model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    ahead = None if filler is None or filler.closed else round(began - filler.began, 2)
    result = fine_tune(student, train, exam[:128], hyper=hyper, processes=Processes(filler=filler))
    synchronize()
    whole = time.monotonic() - began
    loss, exact = evaluate_rows(student, exam, hyper=hyper)
    planned = result.rows * hyper.epochs
    tokens = result.tokens * hyper.epochs
    figure = {
        "device": _name_device(options),
        "torch": torch.__version__,
        "hyper": asdict(hyper),
        "result": asdict(result),
        "load_seconds": round(load_seconds, 2),
        "started_seconds_before": ahead,
        "fine_tune_seconds": round(whole, 2),
        "exam_rows": len(exam),
        "exam_loss": round(loss, 4),
        "exam_exact": round(exact, 4),
    }
    if not result.cut_short:
        figure["train_ex_s"] = round(planned / result.seconds, 1)
        figure["train_ex_s_with_preparing_and_evaluating"] = round(planned / whole, 1)
        figure["real_tokens_s"] = round(tokens / result.seconds)
        figure["milliseconds_a_step"] = round(1e3 * result.seconds / max(1, result.steps), 2)
    if torch.cuda.is_available():
        figure["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    del student
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return figure


def _name_device(options: argparse.Namespace) -> str:
    return torch.cuda.get_device_name() if options.device == "cuda" else "cpu"


def _hyper(options: argparse.Namespace, tokens: int, rate: float) -> SftHyper:
    hyper = SftHyper(
        epochs=options.epochs,
        learning_rate=rate,
        batch_tokens=tokens,
        max_rows_per_batch=options.batch_rows,
        max_tokens=options.max_tokens,
        compile_mode=options.compile,
        cuda_graph=not options.no_graph,
        max_seconds=options.seconds if options.part == "speed" else 0.0,
    )
    return replace(hyper, **{name: _parse(value) for name, value in (item.split("=", 1) for item in options.hyper)})


def _parse(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def measure_round(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time the generator's part of a round of 50 rows and 50 replayed: at first, and in a warm process."""
    from shammah_trainer.student import save_student

    figures = []
    pairs = read_rows(options.rows, most=228, families=("spam_sms", "sentiment_reviews", "topic_stackoverflow"))
    for trial in ("first", "second"):
        began = last = time.monotonic()
        seconds: dict[str, float] = {}
        student = load(options)
        synchronize()
        seconds["load"], last = time.monotonic() - last, time.monotonic()
        rows = encode(pairs, options.base)
        seconds["encode"], last = time.monotonic() - last, time.monotonic()
        hyper = _hyper(options, options.batch_tokens[0], options.learning_rate[0])
        result = fine_tune(student, rows[:100], rows[100:], hyper=hyper)
        synchronize()
        seconds["train"], last = time.monotonic() - last, time.monotonic()
        options.work.mkdir(parents=True, exist_ok=True)
        save_student(student, options.work)
        seconds["save"] = time.monotonic() - last
        seconds["all"] = time.monotonic() - began
        rounded = {name: round(value, 3) for name, value in seconds.items()}
        figures.append({"trial": trial, "seconds": rounded, "hyper": asdict(hyper), "result": asdict(result)})
        print(json.dumps(figures[-1], indent=1), flush=True)
    return figures


def main() -> None:
    """Parse and run one part."""
    from learning_online import measure_online
    from learning_profile import profile_steps

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("pack", "speed", "online", "round"))
    parser.add_argument("--rows", type=Path, default=ROOT / ".bench" / "learning_speed.jsonl.gz")
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--work", type=Path, default=Path("/tmp/learning_speed"))
    parser.add_argument("--count", type=int, default=0, help="rows taken; 0: all")
    parser.add_argument("--all-rows", action="store_true", help="train on the exam rows too")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, nargs="+", default=[8192])
    parser.add_argument("--batch-rows", type=int, default=1024)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, nargs="+", default=[4e-4])
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto")
    parser.add_argument("--no-graph", action="store_true")
    parser.add_argument("--hyper", nargs="*", default=[], help="further NAME=VALUE of SftHyper")
    parser.add_argument("--seconds", type=float, default=0.0, help="speed: stop after; online: of each arm")
    parser.add_argument("--late", action="store_true", help="speed: begin nothing ahead of fine_tune")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--tell", type=Path, default=None)
    parser.add_argument("--made", action="store_true", help="random weights in the shapes of --base")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.part == "pack":
        pack(options.out or options.rows)
        return
    if options.made:
        options.base = make_base(options.base, options.work / "made")
    if options.profile:
        rows = encode(read_rows(options.rows, most=options.count), options.base)
        hyper = _hyper(options, options.batch_tokens[0], options.learning_rate[0])
        profile_steps(load(options), rows, hyper, options.out)
        return
    parts = {"speed": measure_speed, "online": measure_online, "round": measure_round}
    figures = parts[options.part](options)
    if options.tell:
        tell_compiler(options.tell)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({options.part: figures}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
