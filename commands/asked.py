"""Keeps a command's arguments in its output folder, so that no call with other arguments writes there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..contracts import UserMistake
from ..files.reading import read_text, reading, shown
from ..files.writing import write_text

ASKED = "asked.json"
"""The name of the file."""


def take_folder(folder: Path, asked: Mapping[str, object], same: str) -> None:
    """Take a folder that is new, empty, or of the same question.

    Args:
        folder: The folder; it is made where it is missing.
        asked: What is asked, as plain data.
        same: What would be the same question, for the message: ``check of the same model and data``.

    Raises:
        UserMistake: If it holds anything else.
    """
    text, question = json.dumps(asked, indent=2) + "\n", folder / ASKED
    with reading("folder", folder):
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if not taken:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(question, text)
    elif not question.is_file() or read_text(question, "question of a command") != text:
        raise UserMistake(
            f"{shown(folder)} is not an empty folder, nor that of the same {same}, and nothing is overwritten: give "
            "another --out"
        )
