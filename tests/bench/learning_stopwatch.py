"""Where the time of a round goes: how long each of its larger functions ran, in every thread, and when it began.

A profiler of all calls would slow what is many small calls; this wraps some functions by name.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Module, and a function or Class.method of it, as it is looked up where it is called.
WATCHED = (
    *("learn_generator:load_student", "learn_generator:encode_rows", "learn_generator:fine_tune_soup"),
    *("learn_generator:export_generator", "export_generator:save_student", "export_generator:write_graphs"),
    *("learn_generator:compute_expected", "learn_generator:check_parity", "learn_generator:describe_version"),
    *("sft:tabulate", "sft:_measure", "passes:Passes.prepare", "sft_run:SftRun.run"),
    *("rollouts:load_for_rollouts", "ahead:load_for_rollouts", "rollouts:load_model", "rollouts:_grade_and_keep"),
    *("round:choose_limits", "round:roll_out", "rollouts:read_rollouts", "ahead:Ahead.load", "later:Later.take"),
    *("round:learn_judges", "judges:_learn_validator", "judges:_learn_router", "judges:make_version"),
    *("encoders.query_vectors:QueryVectors.embed", "encoders.query_vectors:same_body"),
    *("encoders.train_validator:load_validator", "encoders.train_validator:_make_pairs"),
    *("encoders.train_validator:_ask_neighbours", "encoders.train_validator:gather_features"),
    *("encoders.train_validator:_train_texts", "encoders.train_validator:fit_quality_heads"),
    *("encoders.train_validator:save_version", "encoders.train_validator:_finish_graphs"),
    *("encoders.quality:fit_logistic", "encoders.quality:fit_ensemble"),
    *("encoders.train_router:_train_categories", "encoders.train_router:fit_local_head"),
    *("encoders.train_router:save_version", "encoders.train_router:finish_graph"),
    *("encoders.text_stage:TextStage.train", "encoders.text_stage:TextStage.score"),
    *(
        "scorer:Scorer.score",
        "scorer:Scorer.score_both",
        "scorer:route_queries",
        "scorer:judge_responses",
        "scorer:are_truncated",
    ),
    *("scoring:run_heads", "scoring:_ask_neighbours", "scoring:score_by_network", "network_scores:_compute"),
)
_ENGINE = (
    *("engine:Engine.generate_batch", "engine:Engine._compute_prompt", "engine:Engine._decode_rows"),
    *("model:GeneratorModel.prefill", "model:GeneratorModel.decode", "cuda_model:CudaModel.prefill"),
    "cuda_model:CudaModel.prefill_rows",
    *("cuda_model:CudaModel.decode", "cuda_model:CudaModel._begin", "cuda_model:CudaModel._bind"),
    *("cuda_model:CudaModel.__init__", "cuda_model:read_weights_politely", "cuda_model:open_session"),
    *("cuda_model:load_tokenizer", "model:open_session", "model:read_weights_politely", "model:load_tokenizer"),
)


class Stopwatch:
    """Calls, seconds, first beginning and last end of each watched function."""

    def __init__(self) -> None:
        """Begin at nought."""
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._seen: dict[str, list[float]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the context lasts; what a version of the code does not have is left out."""
        undo: list[tuple[Any, str, Any]] = []
        names = [("shammah_trainer", name) for name in WATCHED] + [("shammah_generator", name) for name in _ENGINE]
        for package, name in names:
            module, _, path = name.partition(":")
            try:
                owner: Any = importlib.import_module(f"{package}.{module}")
                *parts, last = path.split(".")
                for part in parts:
                    owner = getattr(owner, part)
                found = owner.__dict__[last] if parts else getattr(owner, last)
            except (ImportError, AttributeError, KeyError):
                continue
            undo.append((owner, last, found))
            setattr(owner, last, self._wrap(name, found))
        try:
            yield
        finally:
            for owner, last, found in reversed(undo):
                setattr(owner, last, found)

    def tell(self) -> str:
        """Return a table in the order in which things began."""
        lines = [f"{'calls':>7} {'seconds':>8} {'began':>7} {'ended':>7}  function"]
        for name, (calls, seconds, began, ended) in sorted(self._seen.items(), key=lambda item: item[1][2]):
            lines.append(f"{calls:7.0f} {seconds:8.3f} {began:7.2f} {ended:7.2f}  {name}")
        return "\n".join(lines) + "\n"

    def _wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                self._note(name, began, time.monotonic())

        return watched

    def _note(self, name: str, began: float, ended: float) -> None:
        with self._lock:
            entry = self._seen.setdefault(name, [0, 0.0, began - self._began, 0.0])
            entry[0] += 1
            entry[1] += ended - began
            entry[3] = ended - self._began
