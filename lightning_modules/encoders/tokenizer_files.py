"""The files of a tokenizer, looked at before a library builds it: whether they are there, and what they would cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...contracts import UserMistake
from ...reading import read_json, reading
from .messages import one_line

# Any of these is a tokenizer. Without one, transformers makes up a tokenizer of two or three tokens.
_WHOLE = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",))
_MODELS = "*.model"

_LARGEST = 256 << 20  # bytes of a tokenizer.json; those of a quarter of a million tokens have 35 MB
_MOST_ADDED = 100_000  # tokens that are looked for in every text
_MOST_GROWTH = 4096
"""How many times longer a text may become while it is normalised."""
_MOST_EXPANSION = {"NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "Precompiled": 18}
"""Characters that Unicode makes of one, at most."""
_REPEATED_REPEAT = re.compile(r"[+*}]\)?[^()|]{0,8}\)[+*{]")
"""What makes a regular expression take time that is exponential in a text: a repeated group that repeats."""


def check_tokenizer_files(folder: Path) -> None:
    """Check that a folder has a tokenizer, and one that costs no more than tokenizers do.

    Args:
        folder: Folder of a Hugging Face model.

    Raises:
        UserMistake: If it has none, or its description would make of a short text a very long one, or of a caption an
            endless search.
    """
    if not any(all((folder / name).is_file() for name in names) for names in _WHOLE) and not any(folder.glob(_MODELS)):
        needed = ", ".join(" with ".join(names) for names in _WHOLE)
        raise UserMistake(
            f"{folder} holds no tokenizer: looked for {needed}, {_MODELS}; save the model's tokenizer there too, as "
            "its processor's save_pretrained does"
        )
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    content = read_json(path, "tokenizer", _LARGEST)
    with reading("tokenizer", path):
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
        if len(content.get("added_tokens") or ()) > _MOST_ADDED:
            raise ValueError(f"it adds more than {_MOST_ADDED:,} tokens to its vocabulary")
        growth = 1
        for step in _steps(content.get("normalizer")):
            growth = min(growth * _growth(step), 2**62)
        if growth > _MOST_GROWTH:
            raise ValueError(f"its normalizer may make a text {growth:,} times as long")
        for part in ("normalizer", "pre_tokenizer"):
            for step in _steps(content.get(part)):
                _check_pattern(step.get("pattern"))


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer or a pre-tokenizer, those inside of others too."""
    if isinstance(part, dict):
        yield part
        for name in ("normalizers", "pretokenizers"):
            for inner in part.get(name) or ():
                yield from _steps(inner)


def _growth(step: dict[str, Any]) -> int:
    """How many times longer a text may become by one step."""
    kind = step.get("type")
    if kind == "Replace":
        # A pattern may match between any two letters.
        return 1 + len(str(step.get("content") or "")) if _is_pattern(step) else max(1, len(str(step.get("content"))))
    if kind == "Prepend":
        return 1 + len(str(step.get("prepend") or ""))
    return _MOST_EXPANSION.get(str(kind), 1)


def _is_pattern(step: dict[str, Any]) -> bool:
    pattern = step.get("pattern")
    return isinstance(pattern, dict) and "Regex" in pattern


def _check_pattern(pattern: Any) -> None:
    expression = pattern.get("Regex") if isinstance(pattern, dict) else None
    if isinstance(expression, str) and _REPEATED_REPEAT.search(expression):
        raise ValueError(f"its pattern {one_line(expression, 40)!r} may search for ever: a repeated group repeats")
