"""A file of a run folder is named in one module, where it is written and read."""

from __future__ import annotations

import ast
from pathlib import Path

from package_folders import PACKAGE

import untrigger
from untrigger.run_folder import (
    cell,
    config,
    curves,
    decree,
    detection,
    evaluation,
    manifest,
    results,
    similarities,
    suspects,
    target_naming,
    ubt,
)

ROOT = Path(untrigger.__file__).parent
NAMES = {
    *(cell.CELL, config.CONFIG, curves.METRICS, decree.DECREE_RECORD, detection.DETECTION, evaluation.EVALUATION),
    *(manifest.MANIFEST, results.RESULTS, similarities.SIMILARITIES, suspects.SUSPECTS, suspects.SHEET, ubt.UBT_RECORD),
    target_naming.TARGET_NAMING_RECORD,
}


def named(path: Path) -> set[str]:
    """The files of a run folder whose names a module has as texts of their own."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)} & NAMES


def test_every_file_is_named_once() -> None:
    paths = [*ROOT.glob("*.py"), *(path for folder in PACKAGE for path in (ROOT / folder).rglob("*.py"))]
    found = [(name, path.parent.name) for path in paths for name in named(path)]
    assert sorted(found) == sorted((name, "run_folder") for name in NAMES)
