"""Hands the level of what was proved on to what was not: a graph of hypotheses, rejected one by one.

Bretz, Maurer, Brannath and Posch, "A graphical approach to sequentially rejective multiple test procedures" (2009),
algorithm 1: each hypothesis holds a share of the level; one that is rejected gives its share away along its edges, and
its neighbours' edges are joined past it. Whatever the dependence of the p-values, P(any true hypothesis is rejected)
<= level, and what is rejected does not depend on the order. It knows p-values, no rows and no thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from shammah_chassis.errors import InvalidInputError

Floats = NDArray[np.float64]
_ROUNDING = 1e-9


def reject(p_values: Floats, shares: Floats, edges: Floats, *, level: float) -> tuple[NDArray[np.bool_], Floats]:
    """Run the procedure: p-values `[n]`, starting shares `[n]` of `level` and edges `[n, n]`.

    Returns which hypotheses are rejected, and the level at which each was, or would have to be: what a rejected one
    held when it was rejected, what another one holds in the end.

    Raises:
        InvalidInputError: shares or a row of edges below 0 or summing up to more than 1, or an edge to itself.
    """
    shares, edges = np.array(shares, dtype=np.float64), np.array(edges, dtype=np.float64)
    for name, table in (("shares", shares[None]), ("edges", edges)):
        if table.min(initial=0.0) < 0.0 or table.sum(axis=1).max(initial=0.0) > 1.0 + _ROUNDING:
            raise InvalidInputError(f"{name} must be 0 or more and sum up to at most 1")
    if np.diag(edges).any():
        raise InvalidInputError("an edge of a hypothesis to itself")
    rejected = np.zeros(len(p_values), dtype=np.bool_)
    held = np.zeros(len(p_values))
    while True:
        passing = ~rejected & (shares > 0.0) & (p_values <= level * shares)
        if not passing.any():
            return rejected, np.where(rejected, held, level * shares)
        # Any order rejects the same; the surest first.
        chosen = int(np.argmin(np.where(passing, p_values, np.inf)))
        rejected[chosen], held[chosen] = True, level * shares[chosen]
        shares, edges = _pass_on(chosen, shares, edges)


def join_chains(
    lengths: Sequence[int],
    *,
    starts: Sequence[Sequence[int]],
    sure: Sequence[int],
    weights: Sequence[float],
    keep: float,
) -> Floats:
    """Return the edges `[n, n]` of chains that are laid end to end, `lengths` long each.

    A rejected link hands all that it holds to the next one, but the last of the first `sure` ones keeps only `keep` of
    it in its chain, and the last link nothing: the rest goes to the other chains by their `weights`, there in equal
    parts to the links at `starts`. Where there is no other chain, nothing leaves.
    """
    firsts = np.concatenate(([0], np.cumsum(lengths))).astype(int)
    edges = np.zeros((firsts[-1], firsts[-1]))
    for chain, length in enumerate(lengths):
        others = [other for other in range(len(lengths)) if other != chain]
        whole = sum(weights[other] for other in others)
        for link in range(length):
            at, last = firsts[chain] + link, link + 1 == length
            kept = 0.0 if last else keep if whole and link + 1 == sure[chain] else 1.0
            if not last:
                edges[at, at + 1] = kept
            for other in others if whole else ():
                heads = [firsts[other] + start for start in starts[other]]
                edges[at, heads] = (1.0 - kept) * weights[other] / whole / len(heads)
    return edges


def _pass_on(chosen: int, shares: Floats, edges: Floats) -> tuple[Floats, Floats]:
    """Remove one hypothesis: its share goes along its edges, and edges to it go on to where it would have given."""
    given, givers = edges[chosen], np.flatnonzero(edges[:, chosen])
    shares = shares + shares[chosen] * given
    shares[chosen] = 0.0
    # A loop giver -> chosen -> giver would give back what it gives away: it is left out, the others are scaled up.
    taken = edges[givers, chosen]
    loop = 1.0 - taken * given[givers]
    joined = (edges[givers] + np.outer(taken, given)) / np.maximum(loop, _ROUNDING)[:, None]
    joined[loop <= _ROUNDING] = 0.0
    joined[np.arange(len(givers)), givers] = 0.0
    joined[:, chosen] = 0.0
    edges[givers] = joined
    edges[chosen] = 0.0
    return shares, edges
