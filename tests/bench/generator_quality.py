"""How far the served precision is from fp32 PyTorch, and whether an answer depends on who shares the batch."""

from __future__ import annotations

import gzip
import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generator_runs import BASE, Plan, opened
from shammah_chassis.examples import Message
from shammah_generator.chat import encode_prompt, find_ends, load_tokenizer
from shammah_generator.engine import Engine
from shammah_generator.model import GeneratorModel
from shammah_generator.requests import Completion, Request
from shammah_generator.sampling import Sampling
from system import Figure, need_data
from transformers import LlamaForCausalLM

IDS = ("kl", "top1", "kl_fast", "top1_fast", "batch_invariant")
PRECISIONS = {"": "int8", "_fast": "int8_fast"}
FAMILIES = (
    "intent_banking77",
    "extract_restaurant8k",
    "qa_webquestions",
    "sentiment_reviews",
    "science_mcq",
    "math_gsm8k",
    "facts_countries",
    "arithmetic",
    "code_mbpp",
    "intent_clinc150",
    "topic_stackoverflow",
    "unit_conversion",
)
MOST_PROMPT = 256
ANSWER_TOKENS = 48
CONTEXT = MOST_PROMPT + ANSWER_TOKENS
NEIGHBOURS = 16
EXPLAINED = 0.01
LEAST_POSITIONS = 2000
_REFERENCE_BATCH = 8


def measure(wanted: Sequence[str], plan: Plan) -> Iterator[Figure]:
    """Yield the wanted figures."""
    if any(name != "batch_invariant" for name in wanted):
        yield from (figure for figure in measure_distance(plan) if figure.id in wanted)
    if "batch_invariant" in wanted:
        yield measure_invariance(plan)


def read_prompts(count: int) -> list[list[int]]:
    """Return prompts in chat form, taken by turns from the families' train files; none longer than 256 tokens."""
    paths = need_data(*(f"{name}.train.jsonl.gz" for name in FAMILIES))
    tokenizer = load_tokenizer(BASE / "tokenizer.json")
    each = -(-count // len(paths))
    return [ids for path in paths for ids in _read_family(path, tokenizer, each)][:count]


def _read_family(path: Path, tokenizer: Any, count: int) -> list[list[int]]:
    found: list[list[int]] = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            query = json.loads(line)["query"]
            text = query if isinstance(query, str) else query[-1]["content"]
            ids = encode_prompt(tokenizer, [Message("user", text)])
            if len(ids) <= MOST_PROMPT:
                found.append(ids)
            if len(found) == count:
                break
    return found


@dataclass(slots=True)
class _Distances:
    """Per position: KL divergence from the reference in nats, and whether the likeliest token is the same."""

    kl: list[float] = field(default_factory=list)
    same: list[float] = field(default_factory=list)

    def add(self, reference: torch.Tensor, logits: torch.Tensor) -> None:
        """Compare logits `[positions, vocab]` of one answer."""
        p, q = reference.double().log_softmax(-1), logits.double().log_softmax(-1)
        self.kl += (p.exp() * (p - q)).sum(-1).tolist()
        self.same += (p.argmax(-1) == q.argmax(-1)).double().tolist()


def measure_distance(plan: Plan) -> Iterator[Figure]:
    """Compare each precision with fp32 PyTorch, teacher-forced on PyTorch's greedy answers."""
    torch.set_num_threads(plan.threads)
    reference = LlamaForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    prompts = read_prompts(plan.prompts)
    answers = _answer(reference, prompts)
    distances = {suffix: _Distances() for suffix in PRECISIONS}
    with ExitStack() as stack:
        models = {suffix: _load(precision, plan, stack) for suffix, precision in PRECISIONS.items()}
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = prompt + answer[:-1]
            first = len(prompt) - 1
            with torch.inference_mode():
                expected = reference(torch.tensor([ids])).logits[0, first:]
            for suffix, model in models.items():
                scores = model.prefill(0, ids)
                logits = np.stack([scores.logits(place) for place in range(first, len(ids))])
                distances[suffix].add(expected, torch.from_numpy(logits))
    families = min(len(FAMILIES), len(prompts))
    for suffix, found in distances.items():
        yield from _summarise(suffix, found, f"{len(prompts)} real prompts of {families} families", plan)


def _summarise(suffix: str, found: _Distances, source: str, plan: Plan) -> Iterator[Figure]:
    if not plan.quick and len(found.kl) < LEAST_POSITIONS:
        raise SystemExit(f"{len(found.kl)} positions; wanted are {LEAST_POSITIONS}")
    note = (
        f"{PRECISIONS[suffix]} against fp32 PyTorch: {len(found.kl)} positions of {source}, teacher-forced on "
        "PyTorch's greedy answers, computed as one piece; "
    )
    high, most = statistics.quantiles(found.kl, n=100)[98], max(found.kl)
    spread = f"median {statistics.median(found.kl):.4f}, 99th percentile {high:.4f}, most {most:.3f}"
    error = statistics.stdev(found.kl) / len(found.kl) ** 0.5
    yield Figure(f"kl{suffix}", statistics.fmean(found.kl), "nats", f"{note}standard error {error:.4f}; {spread}")
    share = statistics.fmean(found.same)
    error = (share * (1 - share) / len(found.same)) ** 0.5
    yield Figure(f"top1{suffix}", share, "share", f"{note}standard error {error:.4f}")


def _load(precision: str, plan: Plan, stack: ExitStack) -> GeneratorModel:
    model = GeneratorModel.load(
        BASE, precision=precision, threads=plan.threads, slots=1, context=CONTEXT, every_position=True
    )
    stack.callback(model.close)
    return model


def _answer(model: Any, prompts: Sequence[list[int]]) -> list[list[int]]:
    """Return greedy answers of up to 48 tokens, the end of turn included; prompts are padded on the left."""
    ends = find_ends(load_tokenizer(BASE / "tokenizer.json"))
    answers = []
    for start in range(0, len(prompts), _REFERENCE_BATCH):
        group = prompts[start : start + _REFERENCE_BATCH]
        width = max(map(len, group))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in group])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in group])
        with torch.inference_mode():
            made = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=ANSWER_TOKENS,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=sorted(ends),
            )
        answers += [_cut(row, ends) for row in made[:, width:].tolist()]
    return answers


def _cut(answer: list[int], ends: frozenset[int]) -> list[int]:
    end = next((place for place, token in enumerate(answer) if token in ends), len(answer) - 1)
    return answer[: end + 1]


def measure_invariance(plan: Plan) -> Figure:
    """Answer prompts alone, then twice all together on 16 slots; settings of the engine as in a pod."""
    prompts = read_prompts(plan.invariant_prompts)
    settings = {"endless": False, "prefix_bytes": 64 << 20, "threads": plan.threads, "context": CONTEXT}
    with opened("int8", slots=1, **settings) as (_, engine):
        alone = [_complete(engine, [prompt])[0] for prompt in prompts]
    # Neighbours should be of all kinds, not of one family at a time.
    order = np.random.default_rng(0).permutation(len(prompts))
    mixed = [prompts[place] for place in order]
    together = []
    for _ in range(2):
        with opened("int8", slots=NEIGHBOURS, **settings) as (model, engine):
            done = _complete(engine, mixed)
            steps = [step.rows for step in model.steps]
        together.append([tokens for _, tokens in sorted(zip(order.tolist(), done, strict=True))])
    with opened("int8", slots=1, **settings) as (model, engine):
        engine.close(0)
        pairs = zip(prompts, alone, together[0], strict=True)
        gaps = [_find_gap(model, prompt, one, other) for prompt, one, other in pairs if one != other]
    repeated = sum(one == other for one, other in zip(*together, strict=True))
    unexplained = [gap for gap in gaps if gap >= EXPLAINED]
    note = (
        f"{len(prompts)} prompts, up to {ANSWER_TOKENS} tokens, alone and on {NEIGHBOURS} slots (rows of a step: "
        f"median {statistics.median(steps):g}); {len(gaps)} differ, gaps of the two likeliest logits where they part: "
        f"{[round(gap, 4) for gap in sorted(gaps)]}; {len(unexplained)} unexplained (gap {EXPLAINED} or more); "
        f"the same batch twice: {repeated} of {len(prompts)} identical; {sum(map(len, alone))} tokens"
    )
    return Figure("batch_invariant", 1 - len(gaps) / len(prompts), "share", note)


def _complete(engine: Engine, prompts: Sequence[list[int]]) -> list[tuple[int, ...]]:
    sampling = Sampling(max_tokens=ANSWER_TOKENS)
    done = engine.generate_batch([Request(prompt_ids=tuple(prompt), sampling=sampling) for prompt in prompts])
    return [_tokens_of(completion) for completion in done]


def _tokens_of(completion: Completion) -> tuple[int, ...]:
    if completion.error is not None:
        raise SystemExit(f"a response failed: {completion.error.message}")
    # Whether it ended by itself is a part of the answer.
    return (*completion.token_ids, -1) if completion.reason == "stop" else completion.token_ids


def _find_gap(model: GeneratorModel, prompt: list[int], one: Sequence[int], other: Sequence[int]) -> float:
    """Return the gap between the two largest logits where two answers part, as the model alone sees it."""
    same = next(place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    scores = model.prefill(0, prompt)
    for token in one[:same]:
        scores = model.decode([token])
    return scores.margins[0][0]
