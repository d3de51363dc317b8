"""The notebook of the site, run cell by cell with small numbers, and its page."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import jupytext
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).parents[1] / "docs"
SMALL = {
    "TRAIN_PAIRS, CLEAN_PAIRS, TEST_PAIRS, SHARD": "256, 128, 60, 64",
    "ENCODER, EPOCHS, CLEANING_EPOCHS, ROUNDS": '"small:nano-32", 1, 1, 1',
    "PROBE": "ProbeOptions(candidates=8, epochs=1, steps=2)",
    "REPAIR": "RepairOptions(epochs=1, steps=2)",
}


def test_every_cell_runs_and_the_last_one_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = jupytext.read(DOCS / "story.py")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for name, value in SMALL.items():
        code[0].source, found = re.subn(rf"^{name} = .*$", f"{name} = {value}", code[0].source, flags=re.MULTILINE)
        assert found == 1, name
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": sys.executable, "language": "python"}
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (drawn,) = [output for output in code[-1].outputs if "image/png" in output.get("data", {})][:1]
    assert drawn.data["image/png"]
    measured = code[-2].outputs[-1].data["text/plain"]
    assert "val/clean_accuracy" in measured
    assert (tmp_path / "story" / "UBT" / "model.ckpt").exists()


def test_its_page_has_all_cells() -> None:
    spec = spec_from_file_location("notebook_of_the_site", DOCS / "hooks" / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    hook: Any = module_from_spec(spec)
    spec.loader.exec_module(hook)
    page = hook.on_page_markdown("<!-- notebook -->")
    assert page.startswith("# The story, cell by cell\n")
    cells = jupytext.read(DOCS / "story.py").cells
    assert page.count("```python\n") == len([cell for cell in cells if cell.cell_type == "code"])
    for cell in cells:
        assert cell.source.strip() in page
