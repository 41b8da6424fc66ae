"""Two processes learn what one learns from batches twice as large."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from shammah_chassis.errors import InvalidInputError
from shammah_trainer.ddp import main, read_hyper
from support.trainer import make_switch_rows


def write_rows(path: Path, count: int) -> Path:
    rows = [
        {"query": row.query_text, "response": row.response, "weight": (1.0, 3.0, 10.0)[n % 3]}
        for n, row in enumerate(make_switch_rows(count))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_two_processes_learn_what_one_learns_from_steps_twice_as_large(tiny_generator: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 30)
    common = ["--model", str(tiny_generator), "--train", str(rows), "--device", "cpu"]
    hyper = {"epochs": 2, "learning_rate": 2e-3, "max_rows_per_batch": 4, "batch_tokens": 4096}
    one = [*common, "--out", str(tmp_path / "one"), "--hyper", json.dumps({**hyper, "accumulate": 2})]
    assert main(one) == 0
    two = [*common, "--out", str(tmp_path / "two"), "--hyper", json.dumps(hyper)]
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "shammah_trainer.ddp"]
    done = subprocess.run(
        [sys.executable, "-m", *launch, *two],
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two")]
    assert found[0]["steps"] == found[1]["steps"] == 8
    assert found[0]["loss_after"] == pytest.approx(found[1]["loss_after"], abs=1e-3)
    assert found[1]["loss_after"] < found[1]["loss_before"]
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    base = load_file(tiny_generator / "model.safetensors")
    for name, tensor in weights[0].items():
        moved = (tensor - base[name]).abs().mean()
        assert moved > 0
        # Sums in another order move single weights where Adam divides noise by noise, not the whole.
        assert (tensor - weights[1][name]).abs().mean() < 0.05 * moved, name
    assert (tmp_path / "two" / "tokenizer.json").is_file()
    assert torch.isfinite(weights[1]["model.norm.weight"]).all()


@pytest.mark.parametrize(
    "given", [{"variants": 2}, {"word_dropout": 0.1}, {"balance": 0.5}, {"computed": 1}, {"soup": 3}]
)
def test_what_only_rounds_do_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(given))):
        read_hyper(json.dumps(given))
    assert read_hyper('{"epochs": 3, "soup": 1}').epochs == 3


def test_unknown_hyper_parameters_and_broken_rows_are_told(
    tiny_generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidInputError, match="SftHyper"):
        read_hyper('{"learning_speed": 1}')
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"query": "a"}\n')
    arguments = ["--model", str(tiny_generator), "--train", str(rows), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--device", "cpu"]) == 2
    assert "rows.jsonl line 1" in capsys.readouterr().err
