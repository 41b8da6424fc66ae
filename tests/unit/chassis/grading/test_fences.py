from __future__ import annotations

import pytest
from shammah_chassis.grading.fences import strip_fence


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("x = 1", "x = 1"),
        ("    return 1\n", "    return 1\n"),
        ("Sure:\n```python\nx = 1\ny = 2\n```\nDone.", "x = 1\ny = 2\n"),
        ("```\n    return 1\n```", "    return 1\n"),
        ("```py\nfirst\n```\n```py\nsecond\n```", "first\n"),
        ("```python\nx = 1\n", "x = 1\n"),
        ("use `x` inline", "use `x` inline"),
        ("", ""),
    ],
)
def test_the_first_fenced_block_is_the_code(reply: str, code: str) -> None:
    assert strip_fence(reply) == code
