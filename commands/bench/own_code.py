"""The source code of classes of one's own that a run uses, from the working folder."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .syntax import syntax_of, tree_of

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


def own_code(folder: Path, package: Path, texts: Sequence[str]) -> str:
    """The code of the modules that texts name, and of those that these import.

    Args:
        folder: The working folder, in which they are looked for.
        package: Untrigger's own folder, which is left out.
        texts: Values of a config and arguments of a command line: ``my_study.Corner``, or modules after ``--imports``.

    Returns:
        The code by file, as one text; empty where there is none.
    """
    waiting = [path for name in _named(texts) for path in _files(folder, name)]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in found and not path.resolve().is_relative_to(package.resolve()):
            found.add(path)
            waiting += _imported(folder, path)
    return "".join(f"{path.relative_to(folder).as_posix()}\n{_syntax(path)}\n" for path in sorted(found))


def _named(texts: Sequence[str]) -> Iterator[str]:
    """Names of modules: what stands before the last dot of a name, or after ``--imports``."""
    for before, text in zip(("", *texts), texts, strict=False):
        value = text.partition("=")[2] if text.startswith("--") else text
        for name in _NAME.findall(value):
            module = name if before == "--imports" else name.rpartition(".")[0]
            if module:
                yield module


def _files(folder: Path, name: str) -> list[Path]:
    """The files that importing a module runs: its own, and those of the packages that it lies in."""
    parts = name.split(".")
    paths = [folder.joinpath(*parts[:length]) for length in range(1, len(parts) + 1)]
    files = [file for path in paths for file in (path.with_suffix(".py"), path / "__init__.py")]
    return [file for file in files if file.is_file()]


def _imported(folder: Path, path: Path) -> Iterable[Path]:
    try:
        nodes = list(ast.walk(tree_of(path)))
    except (SyntaxError, ValueError):  # told when the run imports it
        return
    package = path.relative_to(folder).parent.parts
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(folder, alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *((node.module,) if node.module else ())))
            for alias in node.names:
                yield from _files(folder, f"{module}.{alias.name}".strip("."))


def _syntax(path: Path) -> str:
    try:
        return syntax_of(path)
    except (SyntaxError, ValueError):
        return path.read_text(encoding="utf-8", errors="replace")
