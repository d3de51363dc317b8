"""The size of files and functions, every package in the wheel, imports without circles, those for types included."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from package_folders import PACKAGE

ROOT = Path(__file__).parents[1]
MOST_LINES, MOST_OF_A_FUNCTION, MOST_ARGUMENTS = 400, 60, 12
Functions = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    """The modules at the root and below some folders."""
    return [*ROOT.glob("*.py"), *(path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_no_file_has_more_than_400_lines_and_no_function_more_than_60() -> None:
    paths = sources(*PACKAGE, "tests", "benchmarks", "docs")
    long = [str(path) for path in paths if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES]
    assert not long
    functions = [(path, node) for path in paths for node in ast.walk(parsed(path)) if isinstance(node, Functions)]
    sizes = {f"{path}: {node.name}": (node.end_lineno or 0) - node.lineno + 1 for path, node in functions}
    assert not {name: lines for name, lines in sizes.items() if lines > MOST_OF_A_FUNCTION}


def test_no_constructor_has_more_than_12_arguments() -> None:
    found = [
        f"{path}: {kind.name}"
        for path in sources(*PACKAGE)
        for kind in ast.walk(parsed(path))
        if isinstance(kind, ast.ClassDef)
        for node in kind.body
        if isinstance(node, Functions) and node.name == "__init__"
        if len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) - 1 > MOST_ARGUMENTS
    ]
    assert not found


def test_no_record_has_more_than_12_fields_but_what_a_file_says() -> None:
    found = {
        kind.name: sum(isinstance(node, ast.AnnAssign) for node in kind.body)
        for path in sources(*PACKAGE)
        for kind in ast.walk(parsed(path))
        if isinstance(kind, ast.ClassDef) and any("dataclass" in ast.unparse(each) for each in kind.decorator_list)
    }
    assert found["UBTRecord"] > 1
    assert {name for name, fields in found.items() if fields > MOST_ARGUMENTS} <= {"BenchSpec"}


def imported(path: Path) -> Iterator[Path]:
    """The files of the package that a file imports, wherever in it: of a package the module that a name is."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            start = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for name in node.names:
                files = ((start / name.name).with_suffix(".py"), start / name.name / "__init__.py")
                files += (start.with_suffix(".py"), start / "__init__.py")
                yield from [file for file in files if file.is_file()][:1]


def test_the_wheel_holds_every_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {path.parent for folder in PACKAGE for path in (ROOT / folder).rglob("*.py")}
    names = {".".join(["untrigger", *path.relative_to(ROOT).parts]) for path in packages}
    assert set(settings["tool"]["setuptools"]["packages"]) == names | {"untrigger"}


def test_imports_have_no_circles() -> None:
    graph = {path: set(imported(path)) - {path} for path in sources(*PACKAGE)}
    assert sum(map(len, graph.values())) > len(graph), "there are imports"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(str(path.relative_to(ROOT)) for path in error.args[1]))
