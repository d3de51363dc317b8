"""Source code as plain data, without what changes no figure."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file, read once."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def syntax_of(path: Path) -> str:
    """A file's code without comments and docstrings, the same whatever Python reads it."""
    return repr(_plain(tree_of(path)))


def _plain(value: Any) -> Any:
    """A syntax tree as plain data, without strings that stand alone and what is only there in some releases."""
    if isinstance(value, ast.AST):
        fields = {name: _plain(part) for name, part in ast.iter_fields(value)}
        return type(value).__name__, [(name, part) for name, part in fields.items() if part not in (None, [])]
    if isinstance(value, list):
        return [_plain(part) for part in value if not _is_text(part)]
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, ast.Expr) and isinstance(value.value, ast.Constant) and isinstance(value.value.value, str)
