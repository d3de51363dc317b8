"""One printable line out of text that foreign files and libraries supply."""

from __future__ import annotations

from collections.abc import Iterable


def one_line(text: object, limit: int = 160) -> str:
    """The first line that says something, cut to ``limit`` characters, with nothing that could steer a terminal."""
    lines = (line.strip() for line in str(text).splitlines())
    line = next((line for line in lines if line), "")
    shown = "".join(character if character.isprintable() else "?" for character in line)
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


def some(names: Iterable[str], limit: int = 3) -> str:
    """The first few of the names and how many more there are."""
    listed = list(names)
    shown = ", ".join(one_line(name, 80) for name in listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"
