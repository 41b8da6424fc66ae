"""How much one exam decides: shares that `certify` would give, over many draws of dev and exam from scored real rows.

    python tests/bench/learning_draws.py [--draws 40]     # after `learning.py finish`, or with its scores

The scores are those of the arms below `.bench/learning` (dev rows by heads that have not seen them). Of each category's
rows some are drawn as dev and exam, and what is certified on these is counted on all others: share, and share of bad
ones. It needs no model, so any commit's `certify` can be compared by PYTHONPATH. Figures go to `results/learning.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from learning_arms import find_work
from learning_results import merge_figures
from learning_scores import Row, group_by, read_scores
from shammah_trainer.certify import CategoryEvidence, GradedRow, certify
from system import Figure

LEAST_ROWS = 300


@dataclass(frozen=True, slots=True)
class Draw:
    """What is drawn of each category; 0: as many as the arm had. Never more than a third (dev) and a half (exam)."""

    id: str
    arm: str
    dev: int
    exam: int
    alpha: float


DRAWS = (
    Draw("drawn_share_all", "all", 0, 0, 0.05),
    Draw("drawn_share_all_exam_600", "all", 300, 600, 0.05),
    Draw("drawn_share_few_dev", "narrow_2000", 12, 240, 0.1),
)


def main() -> None:
    """Draw, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args()
    figures = [measure(draw, options.draws) for draw in DRAWS]
    for figure in figures:
        print(figure.id, figure.value, figure.note)
    if not options.dry:
        merge_figures(figures, command="python tests/bench/learning_draws.py")


def measure(draw: Draw, times: int) -> Figure:
    """Return the mean share over draws, with its deviation from draw to draw and the share of bad ones."""
    rows = read_scores(find_work(dry=False) / draw.arm)
    groups = {name: own for name, own in group_by(rows, "routed").items() if name and len(own) >= LEAST_ROWS}
    rng = np.random.default_rng(0)
    found = [serve_once(groups, draw, rng) for _ in range(times)]
    shares = [share for share, _ in found]
    note = (
        f"arm {draw.arm}, {times} draws of {draw.dev or 'as many'} dev and {draw.exam or 'as many'} exam rows of each "
        f"of {len(groups)} categories, alpha {draw.alpha:g}; from draw to draw {np.std(shares, ddof=1):.3f}; bad "
        f"{np.mean([bad for _, bad in found]):.4f}; mean over categories of what is not drawn"
    )
    return Figure(draw.id, round(float(np.mean(shares)), 4), "share", note)


def serve_once(groups: Mapping[str, Sequence[Row]], draw: Draw, rng: np.random.Generator) -> tuple[float, float]:
    """Certify on one draw; return the mean share of the rest that is answered locally, and the bad among these."""
    evidence, rest = {}, {}
    for name, own in groups.items():
        order = [own[i] for i in rng.permutation(len(own))]
        dev = min(draw.dev or sum(row["part"] == "dev" for row in own), len(own) // 3)
        exam = min(draw.exam or sum(row["part"] == "exam" for row in own), len(own) // 2)
        evidence[name] = CategoryEvidence(
            dev=[grade(row) for row in order[:dev]], exam=[grade(row) for row in order[dev : dev + exam]]
        )
        rest[name] = order[dev + exam :]
    shares, local, bad = [], 0, 0
    for name, found in certify(evidence, alpha=draw.alpha).items():
        limit = np.inf if found.threshold is None else found.threshold
        served = [row for row in rest[name] if row["eligible"] and row["quality"] >= limit]
        shares.append(len(served) / len(rest[name]))
        local, bad = local + len(served), bad + sum(not row["good"] for row in served)
    return float(np.mean(shares)), bad / max(1, local)


def grade(row: Row) -> GradedRow:
    """Return a scored row as evidence."""
    return GradedRow(score=row["quality"], good=row["good"], eligible=row["eligible"])


if __name__ == "__main__":
    main()
