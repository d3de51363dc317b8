"""Tell where the figures of a grid's finished cells are of other data than is given now."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...files.reading import read_text
from ...files.writing import write_text

_NOTE = "data.txt"


def told_data(runs: Path, data: str | None, begins: bool) -> str | None:
    """Compare the data with what the runs of a grid were begun on, and note it where nothing is noted yet.

    Runs are told apart by their settings, in which ``${data}`` is a word: the folder may be moved.

    Args:
        runs: Folder of the run folders.
        data: What ``${data}`` stands for.
        begins: Whether runs begin now, so that the note is to be left.

    Returns:
        A line to print; None where the data are the same, or none that lie on this machine.
    """
    if data is None or not Path(data).is_dir():
        return None
    found, note = _names_and_sizes(Path(data)), runs / "logs" / _NOTE
    if not note.exists():
        if begins:
            note.parent.mkdir(parents=True, exist_ok=True)
            write_text(note, found + "\n")
        return None
    if read_text(note, "note of a grid's data").strip() == found:
        return None
    return (
        f"{data} has other shards than the runs in {runs} were begun on: cells that are finished keep the figures of "
        f"those; give another --out and --cells for figures of these, or remove {note} where they are the same"
    )


def _names_and_sizes(folder: Path) -> str:
    shards = sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in folder.rglob("*.tar"))
    return hashlib.sha256(repr(shards).encode()).hexdigest()
