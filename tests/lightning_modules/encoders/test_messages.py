from __future__ import annotations

import pytest

from untrigger.lightning_modules.encoders.messages import one_line, some


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("\n\n  first \nsecond", "first"),
        ("\x1b[31mred\u202e", "?[31mred?"),
        ("", ""),
        (ValueError("wrong"), "wrong"),
        ("x" * 200, "x" * 157 + "..."),
    ],
)
def test_one_line(text: object, line: str) -> None:
    assert one_line(text) == line


def test_some() -> None:
    assert some([]) == ""
    assert some(["a", "b", "c"]) == "a, b, c"
    assert some("abcde") == "a, b, c and 2 more"
