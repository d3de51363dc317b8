"""A bench's parts, and the package's own halves for choosing and for reporting."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from untrigger.commands.bench.grid import Cell, expand
from untrigger.commands.bench.selection import chosen_cells, part_of
from untrigger.commands.bench.specification import BenchSpec
from untrigger.contracts import UserMistake

BENCHES = Path(__file__).parents[3] / "configs" / "bench"


def bench(name: str) -> tuple[BenchSpec, list[Cell]]:
    parser = ArgumentParser()
    parser.add_class_arguments(BenchSpec, "spec")
    content = yaml.safe_load((BENCHES / f"{name}.yaml").read_text()) | {"data": "pictures"}
    spec = parser.instantiate(parser.parse_object({"spec": content})).spec
    return spec, expand(spec)


def test_the_halves_of_ubt_targets_are_all_of_it_and_have_nothing_in_common() -> None:
    spec, grid = bench("ubt_targets")
    assert len({cell.name for cell in grid}) == len(grid)
    halves = [{cell.name for cell in part_of(grid, spec, part) if cell.listed} for part in ("choosing", "reporting")]
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == {cell.name for cell in grid if cell.listed}
    triggers = {name for name in halves[1] if name.endswith("-truck-seed1")}
    assert len(triggers) == 6
    # The clean model that is the twin of both halves is needed by either, and has a row in one.
    assert {cell.name for cell in part_of(grid, spec, "reporting") if not cell.listed} >= {"clean-seed1"}


def test_the_fast_models_are_twelve_of_the_choosing_half() -> None:
    spec, grid = bench("ubt_targets")
    _, fast = bench("ubt_fast")
    assert len([cell for cell in fast if cell.listed and cell.parent is None]) == 12
    assert {cell.id for cell in fast} <= {cell.id for cell in part_of(grid, spec, "choosing")}


def test_cells_are_chosen_by_pattern_with_what_they_need() -> None:
    spec, grid = bench("ubt_fast")
    assert [cell.name for cell in chosen_cells(grid, ["SIG-*--UBT"])] == ["SIG-frog-seed1", "SIG-frog-seed1--UBT"]
    assert [cell.name for cell in chosen_cells(grid, ["SIG-frog-seed1--twin"])] == [
        "clean-seed1",
        "SIG-frog-seed1--twin",
    ]
    with pytest.raises(UserMistake, match=r"there is no cell SIG\*truck"):
        chosen_cells(grid, ["SIG*truck"])
    with pytest.raises(UserMistake, match="there is no part hard of ubt_fast; there is none"):
        part_of(grid, spec, "hard")
