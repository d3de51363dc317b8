from __future__ import annotations

import pytest
from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]

from untrigger.datamodules.shards.braces import TooManyNames, expand_braces, names_of


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "plain.tar",
        "{0..9}",
        "{00010..00000..3}/{a..e..2}.tar",
        "{-3..2..0}",
        "{5..5}{b..a}",
        "{a,b,}{,}",
        "{a{0..3},{b,c{1..2}}}x{0..1}",
        "{no}{{0..2}}{a..10}{1..2,x}",
        r"\{0..2\}{a\,b,c}",
        "{Z..c}",
    ],
)
def test_what_is_counted_is_what_there_is(pattern: str) -> None:
    names = list(braceexpand(pattern))
    assert names_of(pattern) == len(names)
    assert expand_braces(pattern, len(names)) == names
    with pytest.raises(TooManyNames):
        expand_braces(pattern, len(names) - 1)


@pytest.mark.parametrize("pattern", ["{0..2", "0..2}", "}{0..2}"])
def test_braces_that_are_not_closed_are_an_error(pattern: str) -> None:
    with pytest.raises(UnbalancedBracesError):
        expand_braces(pattern, 10)


def test_what_is_too_large_is_not_expanded() -> None:
    assert names_of("{0..999999999}{a,b}") == 2 * 10**9
    for pattern in ("{0..999999999}", f"{{0..{'9' * 5000}}}", "{a,b}" * 60, "{x," + "{a,b}" * 60 + "}"):
        with pytest.raises(TooManyNames):
            expand_braces(pattern, 10**6)
