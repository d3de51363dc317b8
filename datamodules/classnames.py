"""Read class names, and look up a class by its name. Names may repeat, except one that is looked up."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from ..contracts import UserMistake
from ..files.reading import read_text


def read_classnames(path: Path) -> list[str]:
    """Read class names, one per line: the number of the line, from 0, is the label.

    A line ends with LF or CRLF, or with CR in a file without any LF. The other characters at which Python splits a
    text, such as U+2028, are part of a name. A blank line is an error, wherever it is. White space around a name and a
    byte order mark are removed.

    Args:
        path: Path of a UTF-8 text file.

    Returns:
        The names; two classes may have the same one, as in ImageNet.

    Raises:
        UserMistake: If the file cannot be read, as in ``reading.read_text``, has no names, or has a blank line.
    """
    text = read_text(path, "file of class names")
    lines = text.replace("\r\n", "\n").split("\n" if "\n" in text else "\r")
    if not lines[-1]:  # after the end of the last line
        lines.pop()
    if not lines:
        raise UserMistake(f"{path} is empty: give the name of each class, one a line")
    for number, line in enumerate(lines, start=1):
        if not any(character.isprintable() and not character.isspace() for character in line):
            raise UserMistake(
                f"{path}: line {number} of {len(lines)} is blank: the number of a line is the label, so give class "
                f"{number - 1} a name, or delete the line if there is no such class"
            )
        if "\r" in line.strip():
            raise UserMistake(f"{path}: line {number} has a carriage return inside: end each line with a line feed")
    return [line.strip() for line in lines]


def class_index(name: str, classnames: Sequence[str]) -> int:
    """Look up the index of a class by its name.

    Args:
        name: Name of the class, as in ``classnames``.
        classnames: Names of all classes.

    Returns:
        The index, from 0.

    Raises:
        UserMistake: If no class has the name, or several have.
    """
    found = [index for index, other in enumerate(classnames) if other == name]
    if not found:
        near = get_close_matches(name, classnames) or list(classnames[:10])
        raise UserMistake(
            f"target {name!r} is not among the {len(classnames)} classes of the zero-shot set, "
            f"such as {', '.join(map(repr, near))}"
        )
    if len(found) > 1:
        raise UserMistake(
            f"target {name!r} is the name of {len(found)} classes of the zero-shot set, {', '.join(map(str, found))}: "
            "an attack needs a target of its own; choose another, or rename one of them in classnames.txt"
        )
    return found[0]
