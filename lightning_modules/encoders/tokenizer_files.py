"""Check the files of a tokenizer before a library builds it: that they exist, and cost bounded time and memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...contracts import UserMistake
from ...files.reading import read_json, reading
from .messages import one_line

# Files of which any group makes a tokenizer. Without one, transformers makes up a tokenizer of two or three tokens.
_TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",))
_SENTENCEPIECE = "*.model"

_MAX_BYTES = 256 << 20  # of a tokenizer.json; those of a quarter of a million tokens have 35 MB
_MAX_ADDED_TOKENS = 100_000  # tokens that are looked for in every text
_MAX_GROWTH = 4096
"""The most that a text may grow by normalisation, as a factor of its length."""
_MAX_EXPANSION = {"NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "Precompiled": 18}
"""The most characters that each Unicode normalisation makes of one."""
_NESTED_QUANTIFIER = re.compile(r"[+*}]\)?[^()|]{0,8}\)[+*{]")
"""A quantified group that ends in a quantifier, such as ``(a+)+``: it may backtrack for exponential time."""


def check_tokenizer_files(folder: Path) -> None:
    """Check that a folder has a tokenizer, and that it costs bounded time and memory.

    Args:
        folder: Folder of a Hugging Face model.

    Raises:
        UserMistake: If it has none, or its ``tokenizer.json`` is too large, adds too many tokens, may make a short
            text very long, or has a regular expression of exponential time.
    """
    complete = any(all((folder / name).is_file() for name in names) for names in _TOKENIZER_FILES)
    if not complete and not any(folder.glob(_SENTENCEPIECE)):
        needed = ", ".join([*(" with ".join(names) for names in _TOKENIZER_FILES), _SENTENCEPIECE])
        raise UserMistake(
            f"{folder} holds no tokenizer: looked for {needed}; save the model's tokenizer there too, as "
            "its processor's save_pretrained does"
        )
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    content = read_json(path, "tokenizer", _MAX_BYTES)
    with reading("tokenizer", path):
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
        if len(content.get("added_tokens") or ()) > _MAX_ADDED_TOKENS:
            raise ValueError(f"it adds more than {_MAX_ADDED_TOKENS:,} tokens to its vocabulary")
        growth = 1
        for step in _steps(content.get("normalizer")):
            growth = min(growth * _growth(step), 2**62)
        if growth > _MAX_GROWTH:
            raise ValueError(f"its normalizer may make a text {growth:,} times as long")
        for part in ("normalizer", "pre_tokenizer"):
            for step in _steps(content.get(part)):
                _check_pattern(step.get("pattern"))


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normalizer or a pre-tokenizer, including nested ones."""
    if isinstance(part, dict):
        yield part
        for name in ("normalizers", "pretokenizers"):
            for inner in part.get(name) or ():
                yield from _steps(inner)


def _growth(step: dict[str, Any]) -> int:
    """The most that a text may grow by one step, as a factor of its length."""
    kind = step.get("type")
    if kind == "Replace":
        # A pattern may match between any two letters.
        return 1 + len(str(step.get("content") or "")) if _is_pattern(step) else max(1, len(str(step.get("content"))))
    if kind == "Prepend":
        return 1 + len(str(step.get("prepend") or ""))
    return _MAX_EXPANSION.get(str(kind), 1)


def _is_pattern(step: dict[str, Any]) -> bool:
    pattern = step.get("pattern")
    return isinstance(pattern, dict) and "Regex" in pattern


def _check_pattern(pattern: Any) -> None:
    expression = pattern.get("Regex") if isinstance(pattern, dict) else None
    if isinstance(expression, str) and _NESTED_QUANTIFIER.search(expression):
        raise ValueError(f"its pattern {one_line(expression, 40)!r} may search for ever: a repeated group repeats")
