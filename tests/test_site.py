"""Does the site's page of results say what the records say?"""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

HOOK = Path(__file__).parents[1] / "docs" / "records.py"


@pytest.fixture
def hook() -> Any:
    """The hook, which is no part of the package."""
    spec = spec_from_file_location("records_of_the_site", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(path: Path, accuracy: str, **more: str) -> None:
    result = {"attack": "BadNet", "clean_accuracy": accuracy, "attack_success_rate": "0.5", "triggered_accuracy": ""}
    path.write_text(json.dumps({"attack": "patch", "defence": None, "results": [result], **more}))


def test_a_row_has_the_mean_of_its_runs_and_all_codes_that_made_them(hook: Any, tmp_path: Path) -> None:
    grid = tmp_path / "grid"
    grid.mkdir()
    record(grid / "a.json", "0.7", code="0123abcd")
    record(grid / "b.json", "0.8")
    (line,) = hook.table(grid).splitlines()[2:]
    assert line == "| patch: BadNet | none | 2 | 75.0 | 50.0 |  | **stale**: not recorded, 0123abcd |"


def test_the_page_has_a_table_for_each_grid_and_other_pages_stay(
    hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "CELLS", tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        record(tmp_path / name / "a.json", "0.7", code="0123abcd")
    page = hook.on_page_markdown("before\n\n<!-- records -->")
    assert [line for line in page.splitlines() if line.startswith("#")] == ["## one", "## two"]
    assert page.count("| patch: BadNet | none | 1 | 70.0 | 50.0 |  | 0123abcd |") == 2
    assert hook.on_page_markdown("another page") == "another page"
