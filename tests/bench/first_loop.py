"""The main job on real input: four families, before and after one round of training on this machine.

Writes `results/first_loop.json`. Everything runs as a user runs it: `up`, `eval`, `learn`, `train`, `eval`.
The test rows are only ever asked; the recorded teacher answers forwarded ones from the references.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from shammah_gateway.cli.client import GatewayClient
from shammah_gateway.cli.evaluate import ask_all, report
from shammah_gateway.cli.learn import learn, read_rows
from shammah_gateway.cli.manage import call_tool
from system import Figure, need_data, pull_models, running, with_client, write_results

# Rows of each train file that are put on the stream. The first 300 of a category go to train, dev and exam by thirds,
# later ones mostly to train; what is trained on is counted in the result. Chosen so that fine-tuning takes about 25
# minutes of CPU time on two cores.
ROWS = {
    "sentiment_reviews": 420,
    "topic_stackoverflow": 700,
    "intent_banking77": 1500,
    "extract_restaurant8k": 700,
}
BEFORE_ROWS = 100
BEFORE_TOKENS = 24


def settings(files: Sequence[str], *, seconds: int) -> list[str]:
    """Return the settings of the run: recorded teacher, no automatic rounds, no coins, a bound on training time."""
    return [
        "SHAMMAH_GATEWAY_TEACHER=recorded",
        f"SHAMMAH_GATEWAY_RECORDED_FILES={','.join(files)}",
        "SHAMMAH_GATEWAY_AUDIT_RATE=0",
        "SHAMMAH_GATEWAY_EXPLORE_RATE=0",
        "SHAMMAH_TRAINER_AUTO_TRAIN=false",
        "SHAMMAH_TRAINER_SFT_UPPER_LAYERS=15",
        "SHAMMAH_TRAINER_SFT_LEARNING_RATE=4e-4",
        "SHAMMAH_GATEWAY_ROLE_TIMEOUT_SECONDS=600",
        f"SHAMMAH_TRAINER_SFT_MAX_SECONDS={seconds}",
    ]


async def evaluate(client: GatewayClient, paths: Sequence[Any], *, limit: int, max_tokens: int) -> dict[str, Any]:
    """Ask all test rows and return the report by family."""
    rows, _ = read_rows(paths, limit=limit)
    asked = await ask_all(client, rows, max_tokens=max_tokens)
    return report(asked, [str(path) for path in paths], by="family")


def main() -> None:
    """Run the benchmark and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--test-limit", type=int, default=0, help="test rows of each family; 0 is all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the train rows")
    parser.add_argument("--seconds", type=int, default=1500, help="bound on the generator's training")
    options = parser.parse_args()
    train = need_data(*(f"{name}.train.jsonl.gz" for name in ROWS))
    test = need_data(*(f"{name}.test.jsonl.gz" for name in ROWS))
    pull_models()

    async def work(client: GatewayClient) -> None:
        before = await evaluate(client, test, limit=BEFORE_ROWS, max_tokens=BEFORE_TOKENS)
        print(json.dumps(before, indent=1), flush=True)
        for path, count in zip(train, ROWS.values(), strict=True):
            rows, _ = read_rows([path], limit=int(count * options.scale))
            await learn(client, rows, exam=False)
        result = await call_tool(client, "train", {"wait": True}, wait=True)
        print(json.dumps(result, indent=1), flush=True)
        after = await evaluate(client, test, limit=options.test_limit, max_tokens=0)
        print(json.dumps(after, indent=1), flush=True)
        write_results("first_loop", "make bench-loop", figures(before, after, result))

    with running(settings([str(path) for path in [*train, *test]], seconds=options.seconds)) as folder:
        with_client(folder, work)


def figures(before: dict[str, Any], after: dict[str, Any], result: dict[str, Any]) -> list[Figure]:
    """Return the figures that the issue names."""
    found = []
    for name in ROWS:
        old, new = before["family"][name], after["family"][name]
        found += [
            Figure(f"before.{name}", old["student_accuracy"], "share", f"{old['n']} test rows, {BEFORE_TOKENS} tokens"),
            Figure(f"after.{name}", new["student_accuracy"], "share", f"{new['n']} test rows"),
            Figure(f"local_share.{name}", new["local_share"], "share", f"{new['local']} rows answered locally"),
            Figure(
                f"local_error.{name}",
                0.0 if new["local_accuracy"] is None else round(1 - new["local_accuracy"], 6),
                "share",
                "bad among the locally answered" if new["local"] else "nothing was answered locally",
            ),
        ]
    return [
        *found,
        Figure("train_rows", result["examples_trained"], "rows", "train part; dev and exam rows not counted"),
        Figure("train_seconds", result["duration_seconds"], "s", "whole round: start to release published"),
        Figure("latency_p50_ms", after["times"]["p50_ms"], "ms", "Ask with want_attempt, 16 in flight"),
        Figure("latency_p99_ms", after["times"]["p99_ms"], "ms", "Ask with want_attempt, 16 in flight"),
    ]


if __name__ == "__main__":
    main()
