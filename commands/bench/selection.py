"""Select cells of a grid by part or by name, with the cells that they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from ...contracts import UserMistake
from .grid import Cell
from .specification import BenchSpec


def part_of(grid: Sequence[Cell], spec: BenchSpec, part: str | None) -> list[Cell]:
    """The cells of a part; those that they need, where they are of another, have no rows in its table.

    Args:
        grid: All cells.
        spec: What names the parts.
        part: Which; None for all of it.

    Raises:
        UserMistake: If there is no such part.
    """
    if part is None:
        return list(grid)
    if part not in spec.parts:
        there_is = ", ".join(spec.parts) or "none"
        raise UserMistake(f"bench: there is no part {part} of {spec.name}; there is {there_is}")
    names = set(_matching(grid, spec.parts[part]))
    return [cell if cell.name in names else replace(cell, listed=False) for cell in chosen_cells(grid, sorted(names))]


def chosen_cells(grid: Sequence[Cell], only: Sequence[str] | None) -> list[Cell]:
    """The cells of these names, with * for anything, and those that they need; all where no name is given.

    Raises:
        UserMistake: If no cell has one of the names.
    """
    if only is None:
        return list(grid)
    names = set(_matching(grid, only))
    wanted = {cell.id: cell for cell in grid if cell.name in names}
    for cell in reversed(grid):
        if cell.id in wanted:
            wanted.update({before.id: before for before in cell.needs.values()})
    return [cell for cell in grid if cell.id in wanted]


def _matching(grid: Sequence[Cell], patterns: Sequence[str]) -> Iterator[str]:
    """The names of cells that are, or are like, one of these."""
    for pattern in patterns:
        found = [cell.name for cell in grid if fnmatchcase(cell.name, pattern)]
        if not found:
            raise UserMistake(f"bench: there is no cell {pattern}; --run false lists them")
        yield from found
