"""From studies to figures with the ids of the issue, each beside its rule of length or its TF-IDF baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
from judges_data import HALU, group_of
from judges_router import Routing, average
from judges_stats import benchmarks_with_gap, bootstrap, mean_within, measure_apgr, weighted_within
from judges_validator import Study

Figure = dict[str, Any]
# Fixed on cross-fitted train rows.
MMLU_SCORES = ("tuned", "ridge", "neighbours", "subject")
LLMROUTER_SCORES = ("tuned", "ridge_difficulty", "subject")
_IDS = dict(zip(HALU, ("validator_qa", "validator_dialogue", "validator_summarization"), strict=True))
_PEERS = {"validator_qa": 0.626, "validator_dialogue": 0.724, "validator_summarization": 0.585}


def report_routing(routing: Routing, name: str, *, test: bool) -> list[Figure]:
    """Return the APGR of a routing study with its interval, TF-IDF's, and the paired difference."""
    own = np.flatnonzero((routing.folds == -1) == test)
    strong, weak, benchmarks = routing.strong[own], routing.weak[own], routing.benchmarks[own]
    groups = [group_of(routing.rows[number]) for number in own]
    mmlu = name.endswith("mmlu")
    chosen = benchmarks_with_gap(strong, weak, benchmarks, without="mmlu")
    rest = sorted(set(benchmarks.tolist()) - {"mmlu"})

    def measure(score: np.ndarray[Any, Any], rows: np.ndarray[Any, Any], *, weighted: bool = False) -> float:
        if mmlu:
            return measure_apgr(score[rows], strong[rows], weak[rows])
        within = weighted_within if weighted else mean_within
        return within(score[rows], strong[rows], weak[rows], benchmarks[rows], rest if weighted else chosen)

    best = average(routing, MMLU_SCORES if mmlu else LLMROUTER_SCORES)[own]
    plain = routing.scores["tfidf"][own]
    ours = bootstrap(groups, lambda rows: measure(best, rows))
    tfidf = bootstrap(groups, lambda rows: measure(plain, rows))
    ahead = bootstrap(groups, lambda rows: measure(best, rows) - measure(plain, rows))
    parts = ", ".join(f"{key} {measure(score[own], np.arange(len(own))):.3f}" for key, score in routing.scores.items())
    where = f"{len(own)} {'test' if test else 'train rows, cross-fitted'}"
    note = f"{where}; {ours}; TF-IDF {tfidf}; paired difference {ahead}; alone: {parts}"
    if mmlu:
        return [_figure("router_apgr_mmlu", ours.value, "APGR", note, test=test)]
    note += f"; mean over {', '.join(chosen)} (strong ahead by 5 points or more)"
    weighted = bootstrap(groups, lambda rows: measure(best, rows, weighted=True))
    other = bootstrap(groups, lambda rows: measure(plain, rows, weighted=True))
    return [
        _figure("router_apgr_llmrouter", ours.value, "APGR", note, test=test),
        _figure(
            "router_apgr_llmrouter_weighted",
            weighted.value,
            "APGR",
            f"{where}; {weighted}; TF-IDF {other}; all benchmarks but MMLU, weighted by rows and gap",
            test=test,
        ),
    ]


def report_validator(studies: dict[str, Study], *, test: bool) -> list[Figure]:
    """Return accuracy (HaluEval) and AUROC (relevance), each with what is left without form, and by length alone."""
    figures = []
    for name, figure in _IDS.items():
        if name not in studies:
            continue
        found = studies[name]
        whole, bare, length = (
            found.accuracy(scores, test=test) for scores in (found.probability, found.without_form, found.length_only)
        )
        note = f"{_where(found, test=test)}; {whole}; without columns of form {bare}; length only {length}"
        figures.append(
            _figure(figure, whole.value, "accuracy", note, test=test)
            | {"peer": "ChatGPT", "peer_value": _PEERS[figure]}
        )
    if "relevance" not in studies:
        return figures
    found = studies["relevance"]
    whole, bare, length = (
        found.auroc(scores, test=test) for scores in (found.probability, found.without_form, found.length_only)
    )
    note = f"{_where(found, test=test)}; {whole}; without columns of form {bare}; length only {length}"
    return [*figures, _figure("validator_relevance_same_family", whole.value, "AUROC", note, test=test)]


def _where(study: Study, *, test: bool) -> str:
    return f"{len(study.part(test=test))} {'test rows' if test else 'train rows, cross-fitted'}"


def _figure(name: str, value: float, unit: str, note: str, *, test: bool) -> Figure:
    # A cross-fitted figure never takes the place of a tested one.
    return {"id": name if test else f"train.{name}", "value": round(value, 4), "unit": unit, "note": note}
