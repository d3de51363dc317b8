"""The source code of a cell: a digest of what its run uses of the package, without comments and docstrings."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from .grid import Cell, read_config
from .own_code import own_code
from .syntax import syntax_of, tree_of

_RUN = Path("command_line", "lightning_cli.py")
"""What every run is, with all that it imports."""
_METHODS = Path("lightning_modules", "__init__.py")
"""Where methods are exported: a run uses its own, not those that are imported beside it."""


def code_of(cell: Cell) -> str:
    """The digest of a cell that is run now, after those that it needs.

    Args:
        cell: A cell of a grid.

    Returns:
        Eight hexadecimal digits.
    """
    return code_after(cell, [code_of(before) for before in cell.needs.values()])


def code_after(cell: Cell, before: Iterable[str]) -> str:
    """The digest of a cell that starts from others which are finished.

    It covers what `untrigger` runs, the methods that the cell's config and arguments name, and classes of one's own in
    the working folder. Another method, a command beside the trainer, a comment or a docstring changes nothing.

    Args:
        cell: A cell of a grid.
        before: The digests of those that it needs.

    Returns:
        Eight hexadecimal digits.
    """
    texts = [*_texts(read_config(cell.config)), *cell.arguments]
    words = frozenset(word.rpartition(".")[2] for word in texts)
    package = Path(str(files("untrigger")))
    parts = [package_code(package, words), own_code(Path.cwd(), package, texts), *sorted(before)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:8]


@cache
def package_code(package: Path, names: frozenset[str]) -> str:
    """A digest of the source that a run uses.

    Args:
        package: The package's folder.
        names: Names among which the run's classes are. Where no method of the package is among them, the run has one of
            its user's, which may use any.

    Returns:
        Hexadecimal digits, the same for the same syntax tree whatever Python reads it.
    """
    exported = _exports(package / _METHODS)
    methods = {path for name, path in exported.items() if name in names}
    used = _closure(package / _RUN, package / _METHODS)
    for path in methods or {package / _METHODS}:
        used |= _closure(path)
    digest = hashlib.sha256()
    for path in sorted(used | set((package / "datamodules").rglob("*.txt"))):
        content = syntax_of(path) if path.suffix == ".py" else path.read_text(encoding="utf-8")
        digest.update(f"{path.relative_to(package).as_posix()}\n{content}\n".encode())
    return digest.hexdigest()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _closure(start: Path, *beyond: Path) -> set[Path]:
    """A file and all that it imports, directly or not, except some files."""
    found, waiting = {start}, [start]
    while waiting:
        for path in _imports(waiting.pop()):
            if path not in found and path not in beyond:
                found.add(path)
                waiting.append(path)
    return found


@cache
def _exports(path: Path) -> dict[str, Path]:
    """What a package exports, with the file that it is from."""
    found: dict[str, Path] = {}
    for statement in _statements(path):
        for file in _modules(_module_path(path, statement.level, statement.module)):
            found.update({name.asname or name.name: file for name in statement.names})
    return found


@cache
def _imports(path: Path) -> list[Path]:
    """The files of the package that a file imports."""
    found: list[Path] = []
    for statement in _statements(path):
        module = _module_path(path, statement.level, statement.module)
        packages = _modules(module)
        for name in statement.names:
            # Of a package that passes a name on, only the file that the name is from.
            passed_on = [_exports(package)[name.name] for package in packages if name.name in _exports(package)]
            found += passed_on or _modules(module / name.name) or packages
    for node in ast.walk(tree_of(path)):  # what is imported by its name, as text
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\.[\w.]+", node.value):
            found += _modules(_module_path(path, 1, node.value[1:]))
    return found


def _statements(path: Path) -> list[ast.ImportFrom]:
    return [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ImportFrom) and node.level]


def _module_path(path: Path, level: int, module: str | None) -> Path:
    """Where a relative import of a file looks, without suffix."""
    return path.parents[level - 1].joinpath(*(module or "").split("."))


def _modules(path: Path) -> list[Path]:
    return [file for file in (path.with_suffix(".py"), path / "__init__.py") if path.name and file.is_file()]
