"""YAML as plain data, at a cost that its size bounds."""

from __future__ import annotations

import os
from typing import Any

import yaml

from .reading import read_text, reading

MAX_BYTES = 1 << 20
"""Of a config."""
_MAX_NODES = 100_000
"""With each alias counted as what it stands for: a few lines of aliases to aliases stand for more than any memory."""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast


def read_yaml(path: str | os.PathLike[str], what: str, most: int = MAX_BYTES) -> Any:
    """Read a YAML file: plain data alone, whatever tags it has.

    Args:
        path: A regular file.
        what: What it is, for messages.
        most: Bytes that it may have.

    Raises:
        UserMistake: If it cannot be read, is no YAML, asks for objects, or its aliases stand for too much.
    """
    text = read_text(path, what, most)
    with reading(what, path):
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()


def _check_size(root: yaml.Node) -> None:
    sizes: dict[int, int] = {}
    todo: list[tuple[yaml.Node, bool]] = [(root, False)]
    open_ones: set[int] = set()
    while todo:
        node, counted = todo.pop()
        parts = _parts(node)
        if counted:
            open_ones.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(part)] for part in parts)
            if sizes[id(node)] > _MAX_NODES:
                raise ValueError(f"its aliases stand for more than {_MAX_NODES:,} values")
        elif id(node) in open_ones:
            raise ValueError("a part of it holds itself")
        elif id(node) not in sizes:
            open_ones.add(id(node))
            todo.append((node, True))
            todo.extend((part, False) for part in parts)


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
