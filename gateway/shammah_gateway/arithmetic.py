"""The value of a query that is a plain arithmetic expression, computed exactly. Nothing is evaluated as a program.

The text is parsed by `ast`, and only numbers, brackets and + - * / ** are walked, with bounds on length and on powers.
Percent signs, units, variables and words make it no plain expression.
"""

from __future__ import annotations

import ast
import re
from decimal import Decimal
from fractions import Fraction

from shammah_chassis.grading.numbers import find_numbers

MAX_CHARS = 200
MAX_EXPONENT = 64
# The widest number on the way, in bits.
MAX_BITS = 4096
_LEAD = re.compile(
    r"^(?:please\s+)?(?:what(?:'s|\s+is)|how\s+much\s+is|calculate|compute|evaluate|work\s+out|solve|find)?\s*:?\s*"
    r"(?:the\s+(?:value|result)\s+of\s+)?",
    re.IGNORECASE,
)
_TAIL = re.compile(r"\s*(?:=\s*)?\??\s*\.?\s*$")
_ALLOWED = re.compile(r"[\d\s.,+\-*/()^]+")
_SIGNS = str.maketrans({"\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", "\u2013": "-"})
_TIMES = re.compile(r"(?<=[\d)])\s*[xX]\s*(?=[\d(])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# 2024-11-22 and 555-1234-99 are no subtractions that anybody asks for; a leading zero is no number of ours.
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\b0\d")


def compute(query: str) -> Fraction | None:
    """Return the exact value of a query such as "What is 12 x (3 + 4)?"; None when it is no plain expression."""
    if len(query) > MAX_CHARS:
        return None
    text = _TAIL.sub("", _LEAD.sub("", query.strip().translate(_SIGNS), count=1))
    text = _THOUSANDS.sub("", _TIMES.sub("*", text)).strip()
    if not _ALLOWED.fullmatch(text) or "," in text or _DATE.search(text):
        return None
    try:
        tree = ast.parse(text.replace("^", "**"), mode="eval").body
        if not any(isinstance(node, ast.BinOp) for node in ast.walk(tree)):
            return None
        return _walk(tree)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def find_error(query: str, response: str) -> str:
    """Return what is wrong with a response to a plain expression; "" when it is right or the query is no such thing.

    The last number of the response counts; it may be rounded at its last decimal.
    """
    value = compute(query)
    found = find_numbers(response)
    if value is None or not found:
        return ""
    told = found[-1]
    digits = max(0, -int(told.as_tuple().exponent))
    room = Fraction(1, 2 * 10**digits) if digits and value.denominator > 1 else Fraction(0)
    if abs(Fraction(told) - value) <= room:
        return ""
    return f"computed, it is {_show(value)}, not {told}"


def _walk(node: ast.expr) -> Fraction:
    """Return the value of a tree; ValueError for anything but numbers and the operators, or when it grows too wide."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        # The text of a decimal, not its binary rounding.
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _walk(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if not isinstance(node, ast.BinOp):
        raise ValueError("no plain expression")
    left, right = _walk(node.left), _walk(node.right)
    if isinstance(node.op, ast.Pow):
        value = _raise(left, right)
    elif isinstance(node.op, ast.Add):
        value = left + right
    elif isinstance(node.op, ast.Sub):
        value = left - right
    elif isinstance(node.op, ast.Mult):
        value = left * right
    elif isinstance(node.op, ast.Div):
        value = left / right
    else:
        raise ValueError("no plain expression")
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise ValueError("too wide")
    return value


def _raise(base: Fraction, power: Fraction) -> Fraction:
    if power.denominator != 1 or abs(power) > MAX_EXPONENT:
        raise ValueError("no power of ours")
    wide = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(int(power))
    if wide > MAX_BITS:
        raise ValueError("too wide")
    return Fraction(base ** int(power))


def _show(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return f"{Decimal(value.numerator) / Decimal(value.denominator):.6g}"
