"""Find options that are given twice on a command line, and keys that are given twice in its YAML files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import yaml

from ..contracts import UserMistake
from ..files.printable import printable
from ..files.reading import read_text

_OPTION = re.compile(r"--([A-Za-z_][\w.\-+]*)(?:=(.*))?", re.DOTALL)
_AGAIN = {"config", "help", "print_config", "version"}
_FILES = (".yaml", ".yml", ".json")
_NESTED = (".yaml", ".yml")
"""Files that a file names. A JSON file there is a manifest, which can be large and has a reader of its own."""
_SHOWN = 3
_DEEPEST, _MOST = 8, 10_000
"""How deep options of a config are looked for, and how many, so that its size bounds the time."""


def check_said_once(arguments: Sequence[str]) -> None:
    """Check that no option of a command line is given twice, and no key twice in a YAML file that it names.

    Nor in a YAML file that such a file names in turn, as ``trainer: trainer.yaml`` does.

    The last one would win in silence. Not meant are files with settings, of which a later one changes an earlier one's,
    options that add to a list (``+=``), and an option of something that has been chosen anew since.

    Raises:
        UserMistake: If one is.
    """
    given: dict[str, list[str]] = {}
    for _, name, value in _options(arguments):
        given.setdefault(name, []).append(value)
        _forget(name, given)
    for name, values in given.items():
        if len(values) > 1:
            shown = ", ".join(printable(value)[:100] for value in values[:_SHOWN])
            more = ", ..." if len(values) > _SHOWN else ""
            raise UserMistake(
                f"--{name} is given {len(values)} times ({shown}{more}): give it once; a shell makes several options "
                f"of --{name}=a{{1,2}} unless what follows the = is in quotes"
            )
        if (value := values[0]).startswith(("{", "[")) and (tree := _composed(value)) is not None:
            _check_keys(tree, f"--{name}")
    for _, name, value in _options(arguments, files=True):
        _check_file(name, value, set())
    _check_order(arguments)


def with_last_ones(arguments: Sequence[str]) -> list[str]:
    """A command line that was put together from several, where of an option that is given twice the last one counts."""
    last: dict[str, int] = {}
    dropped: set[int] = set()
    for index, name, _ in _options(arguments):
        if name in last:
            dropped |= set(_words(arguments, last[name]))
        last[name] = index
        _forget(name, last)
    return [word for index, word in enumerate(arguments) if index not in dropped]


def _options(arguments: Sequence[str], files: bool = False) -> Iterator[tuple[int, str, str]]:
    """Index, name and value of each option that may be given once, or of those that are files with settings."""
    for index, word in enumerate(arguments):
        found = _OPTION.fullmatch(word)
        if found is None:
            continue
        after = arguments[index + 1] if len(_words(arguments, index)) > 1 else ""
        value = after if found[2] is None else found[2]
        # jsonargparse takes an argument of a class with and without these two.
        name = found[1].replace(".init_args", "").removesuffix(".class_path")
        is_file = name == "config" or ("." not in name and value.endswith(_FILES))
        if is_file if files else not is_file and name not in _AGAIN:
            yield index, name, value


def _words(arguments: Sequence[str], index: int) -> range:
    """The indices of an option's words: its own, and its value's where that follows it."""
    following = arguments[index + 1] if index + 1 < len(arguments) else "--"
    apart = "=" not in arguments[index] and _OPTION.fullmatch(following) is None
    return range(index, index + 2 if apart and following != "--" else index + 1)


def _forget(name: str, given: dict[str, Any]) -> None:
    """What is chosen anew, or added to a list, has options of its own."""
    chosen = name.removesuffix("+")
    for other in [other for other in given if other.startswith(f"{chosen}.")]:
        del given[other]
    if chosen != name:
        del given[name]


def _check_file(option: str, path: str, seen: set[str]) -> None:
    """Check a file, and those that it names, each once; ``seen`` are those that were checked."""
    real = os.path.realpath(path)
    if not path or real in seen or not os.path.isfile(path):
        return  # its reader has something to say
    seen.add(real)
    tree = _composed(read_text(path, f"--{option}"))
    if tree is None:
        return
    _check_keys(tree, path)
    for named in _named_files(tree):
        # The parser looks for it beside the file that names it.
        _check_file(option, os.path.normpath(os.path.join(os.path.dirname(path), named)), seen)


def _composed(text: str) -> yaml.Node | None:
    """YAML's names and values, of which nothing is built; None where it is none, which its reader has to say."""
    try:
        tree: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    return tree


def _check_order(arguments: Sequence[str]) -> None:
    """Check that no option stands before a config that says the same, which would undo it in silence."""
    earlier: dict[str, int] = {}
    configs = {index: value for index, name, value in _options(arguments, files=True) if name == "config"}
    for index, name, _ in _options(arguments):
        earlier.setdefault(name.removesuffix("+"), index)
    for index, path in configs.items():
        before = [name for name, place in earlier.items() if place < index]
        if not before or not os.path.isfile(path) or (tree := _composed(read_text(path, "--config"))) is None:
            continue
        said = set(islice(_said(tree), _MOST))
        if undone := next((name for name in before if name in said), None):
            raise UserMistake(f"--{undone} stands before --config {path}, which says it again: put --config first")


def _said(tree: yaml.Node, above: str = "") -> Iterator[str]:
    """The options that a config says, as a command line calls them."""
    if not isinstance(tree, yaml.MappingNode) or above.count(".") > _DEEPEST:
        return
    for key, value in tree.value:
        if isinstance(key, yaml.ScalarNode):
            name = above if key.value in ("class_path", "init_args") else f"{above}.{key.value}".lstrip(".")
            if key.value != "init_args":
                yield name
            yield from _said(value, name)


def _named_files(tree: yaml.Node) -> list[str]:
    """The files that hold whole parts of a config, as its outermost keys name them."""
    values = [value for _, value in tree.value] if isinstance(tree, yaml.MappingNode) else []
    return [each.value for each in values if isinstance(each, yaml.ScalarNode) and each.value.endswith(_NESTED)]


def _check_keys(tree: yaml.Node, path: str) -> None:
    seen: set[int] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        keys: set[str] = set()
        for key, value in node.value:
            waiting.append(value)
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in keys:
                where = f"line {key.start_mark.line + 1}"
                raise UserMistake(
                    f"{path} has {printable(key.value)[:100]!r} twice in one mapping ({where}): give it once"
                )
            keys.add(key.value)
