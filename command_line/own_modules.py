"""Modules of the user's own: where they are found, and which are imported because she says so."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..contracts import UserMistake
from ..errors.libraries import own_location
from ..errors.lines import not_imported

Imports = str | list[str] | None
"""Names of modules: one, a list, or none."""


def search_working_folder() -> None:
    """Let Python look for modules in the working folder too, after everywhere else.

    Never before: who works in a folder that was downloaded must not run its ``yaml.py``.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)


def import_beside(names: Imports) -> None:
    """Import modules that the user has named, from the working folder too; nothing where there are none.

    Args:
        names: Dotted names.

    Raises:
        UserMistake: As `import_modules`.
    """
    if names:
        search_working_folder()
        import_modules(names)


def import_modules(names: Imports) -> None:
    """Import modules, so that their classes are known by name, in manifests too.

    Args:
        names: Dotted names.

    Raises:
        UserMistake: If there is no such module, or it fails.
    """
    for name in module_names(names):
        if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
            raise UserMistake(f"imports: {name!r:.200} is no name of a module; a file my_study.py is named my_study")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UserMistake(f"imports: {not_imported(name, error.name or '', str(error))}") from error
        except (Exception, SystemExit) as error:  # whatever the module does
            message = f"{type(error).__name__}: {error}{own_location(error)}"
            raise UserMistake(f"imports: {not_imported(name, '', message)}") from error


def module_names(names: Imports) -> list[str]:
    """The names as a list."""
    return [names] if isinstance(names, str) else list(names or [])


def asked_imports(arguments: Sequence[str]) -> list[str]:
    """The modules that a command line asks for, itself or in its config files.

    They are wanted before the rest is parsed, which may name their classes.

    Args:
        arguments: Arguments of a command, with or without its name.

    Returns:
        Their names. What is wrong with a file or an option is reported when it is parsed.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in ("--imports", "--imports+", "--config"):
        parser.add_argument(option, action="append", default=[])
    try:
        given, _ = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError:
        return []
    found: list[str] = []
    for path in given.config:
        content = _read(Path(path))
        found += _names(content.get("imports")) if isinstance(content, dict) else []
    for value in (*given.imports, *getattr(given, "imports+")):
        found += _names(_parsed(value))
    return found


def _read(path: Path) -> Any:
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError):
        return None


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _names(value: Any) -> Iterable[str]:
    names = value if isinstance(value, list) else [value]
    return [name for name in names if isinstance(name, str)]
