"""Category `large_arithmetic`: products of numbers with five to seven digits.

A student of this size can not do them: the demo's proof that what is not learned stays forwarded.
"""

from __future__ import annotations

from random import Random

from shammah_gateway.demo.drafts import Draft, expand, vary_case

CATEGORY = "large_arithmetic"
METRIC = "numeric"

_PRODUCTS: tuple[str, ...] = (
    "[what is|what's|calculate|compute|work out|find|give me|tell me] {a} [times|multiplied by|x|*] {b}",
    "[multiply|please multiply] {a} [by|with] {b}",
    "[the|find the|give the|what is the] product of {a} and {b}",
    "how much is {a} [times|multiplied by|x|*] {b}?",
    "{a} [times|x|*|multiplied by] {b} [is|equals|=|makes|gives] ?",
    "{a} [boxes|crates|pallets|bags] with {b} [screws|beads|seeds|pins] each: how many in total?",
    "[a field|a wall|a floor] is {a} by {b} [metres|feet]: its area?",
)
_SUMS = (
    "[what is|calculate|compute|work out|find] {a} [times|x|*] {b} plus {c}",
    "[add|please add] {c} to the product of {a} and {b}",
    "how much is {c} more than {a} [times|x|*] {b}?",
)
_DIFFERENCES = (
    "[what is|calculate|compute|work out|find] {a} [times|x|*] {b} minus {c}",
    "[subtract|take] {c} from the product of {a} and {b}",
    "how much is {c} less than {a} [times|x|*] {b}?",
)
_SQUARES = (
    "[what is|calculate|compute|work out|find] {a} squared",
    "[what is the|find the|give the|the] square of {a}",
    "[multiply {a} by itself|take {a} times itself|raise {a} to the power of two]",
)


def draw(rng: Random, turn: int) -> Draft:
    """Word one task; of ten turns, six are products, one a square, the rest add or subtract a third number."""
    first, second = rng.randint(10_000, 9_999_999), rng.randint(10_000, 999_999)
    third = rng.randint(10_000, 999_999)
    kind = turn % 10
    if kind < 6:
        patterns, value = _PRODUCTS, first * second
    elif kind < 7:
        first = second
        patterns, value = _SQUARES, first * first
    elif kind < 9:
        patterns, value = _SUMS, first * second + third
    else:
        patterns, value = _DIFFERENCES, first * second - third
    slots = {"a": (str(first),), "b": (str(second),), "c": (str(third),)}
    text = vary_case(expand(rng.choice(patterns), rng, slots), rng)
    return Draft(text=text, query=f"Answer with a number: {text}", reference=str(value))
