"""The stopwatch of the benchmarks: what it watches is there, and is what a round calls."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from shammah_trainer import learn_generator

BENCH = Path(__file__).parents[2] / "bench" / "learning_stopwatch.py"


@pytest.fixture(scope="module")
def stopwatch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("learning_stopwatch", BENCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("package", "names"), [("shammah_trainer", "WATCHED"), ("shammah_generator", "_ENGINE")])
def test_every_watched_function_is_where_it_is_looked_for(stopwatch: ModuleType, package: str, names: str) -> None:
    # One that is not there is left out without a word, and its time is missed.
    missing = []
    for name in getattr(stopwatch, names):
        module, _, path = name.partition(":")
        owner: object = importlib.import_module(f"{package}.{module}")
        for part in path.split("."):
            owner = getattr(owner, part, None)
        if not callable(owner):
            missing.append(name)
    assert missing == []


def test_the_fine_tuning_is_timed_as_a_round_calls_it(stopwatch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn_generator, "fine_tune_soup", lambda: "trained")
    watch = stopwatch.Stopwatch()
    with watch.watching():
        assert learn_generator.fine_tune_soup() == "trained"
    assert "learn_generator:fine_tune_soup" in watch.tell()
