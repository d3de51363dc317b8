"""Other people's text, as a figure or a page may show it."""

from __future__ import annotations


def printable(text: str, letters: int | None = None) -> str:
    """Text with a blank for each control character, which steers a terminal and for which fonts have no glyph.

    Args:
        text: Text of any origin; it is not escaped.
        letters: How many it has at most, the last one an ellipsis where it is cut; None for all.
    """
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if letters is None or len(text) <= letters else f"{text[: letters - 1]}…"
