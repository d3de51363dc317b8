"""Does the site say what the records, the code and the pages' sources say?"""

from __future__ import annotations

import json
import re
import runpy
import sys
import zlib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from untrigger import callbacks, datamodules, lightning_modules
from untrigger.datamodules import PoisonPlan, Trigger
from untrigger.lightning_modules import detection, encoders, losses, screening

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def hook(name: str) -> Any:
    """A hook of MkDocs, which is no part of the package."""
    spec = spec_from_file_location(f"{name}_of_the_site", DOCS / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(
    folder: Path, cell: str, accuracy: float, *, defence: str | None = None, seconds: str = "", **more: Any
) -> None:
    result = {"dataset": "test", "attack": "BadNet", "defence": defence or "none", "seed": "1"}
    result |= {"clean_accuracy": str(accuracy), "attack_success_rate": "0.5", "triggered_accuracy": ""}
    result |= {"non_target_triggered_accuracy": str(accuracy / 2), "seconds": seconds}
    known = {"cell": cell, "attack": "patch", "defence": defence, "results": [result], "needs": {}}
    folder.mkdir(exist_ok=True)
    (folder / f"{cell}.json").write_text(json.dumps(known | {"peak_memory_mb": 1, "date": "2026-01-02"} | more))


def test_a_row_has_the_mean_of_its_runs_and_what_their_twins_have(tmp_path: Path) -> None:
    grid = tmp_path / "grid"
    record(grid, "patch-seed1-0123abcd", 0.7)
    record(grid, "patch-seed1--twin-0123abce", 0.8, needs={"twin": "clean-seed1-01234567"})
    record(grid, "patch-seed2-0123abcf", 0.9)
    record(grid, "patch-seed1--UBT-0123abcd", 0.6, defence="UBT")  # of the method before, by its age
    head, _, line = [each for each in hook("records").section(grid).splitlines() if each.startswith("|")]
    columns = "clean accuracy | attack success | its floor | accuracy under the trigger | recovered"
    assert head == f"| attack | defence | runs | {columns} |"
    assert line == "| patch | none | 2 | 80.0 | 50.0 | 50.0 | 40.0 | 87.5 |"


def test_of_a_cell_with_other_settings_the_last_counts(tmp_path: Path) -> None:
    grid = tmp_path / "grid"
    record(grid, "patch-seed1-0123abcd", 0.7, date="2026-01-01")
    record(grid, "patch-seed1-1123abcd", 0.9)
    assert "| patch | none | 1 | 90.0 | 50.0 |" in hook("records").section(grid)


def test_the_page_has_a_section_for_each_grid_the_newest_first_and_other_pages_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = hook("records")
    monkeypatch.setattr(records, "CELLS", tmp_path)
    record(tmp_path / "one", "patch-seed1-0123abcd", 0.7)
    record(tmp_path / "two", "patch-seed1-0123abcd", 0.7, date="2026-01-03")
    page = records.on_page_markdown("before\n\n<!-- records -->")
    assert [line for line in page.splitlines() if line.startswith("#")] == ["## two", "## one"]
    assert "Made 2026-01-02, in part by code that is not recorded (**stale**)." in page
    assert records.on_page_markdown("another page") == "another page"


def test_a_method_has_its_rows_of_the_reporting_target_and_what_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(DOCS / "hooks")
    rows = hook("method_rows")
    monkeypatch.setattr(rows, "CELLS", tmp_path)
    grid, success = tmp_path / rows.GRID, {"highest": {"val/attack_success_rate": 0.25}}
    record(grid, "patch-dog-seed1-0123abcd", 0.9, attack="patch-dog")
    record(grid, "patch-dog-seed1--twin-0123abce", 0.8, attack="patch-dog", needs={"twin": "clean-seed1-01234567"})
    record(grid, "patch-dog-seed1--twin--rebound-0123abca", 0.8, attack="patch-dog", needs={"twin": "x"}, **success)
    record(grid, "patch-dog-seed1--PAR-0123abcf", 0.6, attack="patch-dog", defence="PAR", seconds="90")
    record(grid, "patch-dog-seed1--PAR--rebound-0123abcc", 0.6, attack="patch-dog", defence="PAR", **success)
    record(grid, "patch-frog-seed1--PAR-0123abcf", 0.1, attack="patch-frog", defence="PAR")  # chosen on
    section = rows.on_page_markdown("before\n<!-- rows of PAR -->\nafter")
    (ours,) = [line for line in section.splitlines() if line.startswith("| patch")]
    assert ours == "| patch | 90.0 → 60.0 | 50.0 → 50.0 (50.0) | 45.0 → 30.0 (40.0) | 75.0 | 25.0 (25.0) | 90 |"
    assert "| WaNet | RN50, finetuned with poison | 53 to 54 | 0.0 | [2412.00727]" in section
    assert section.startswith("before\n## What it did\n")
    assert section.endswith("after")
    assert rows.on_page_markdown("before\n<!-- rows of no method -->") == "before\n"
    assert rows.section("RVPT").startswith("## What was published")


def test_every_method_asks_for_its_rows_by_a_name_that_the_reference_has() -> None:
    asked = {re.search(r"rows of (.+?) -->", page.read_text()) for page in (DOCS / "methods").glob("*.md")}
    names = {match[1] for match in asked if match}
    spec = yaml.safe_load((ROOT / "configs" / "bench" / "reference.yaml").read_text())
    assert names == {*spec["defences"], "RVPT"}


def test_the_home_page_is_the_readme_with_links_from_where_it_is() -> None:
    page = hook("elsewhere").on_page_markdown((DOCS / "index.md").read_text())
    assert page.startswith("# Untrigger\n")
    assert "](docs/" not in page
    links = re.findall(r"\]\(([^)#:]+)\)", page)
    assert len(links) > 10
    for link in links:
        assert (DOCS / link).exists(), link
    assert hook("elsewhere").on_page_markdown("another page") == "another page"


def headings(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub and MkDocs make them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def lost_links(page: Path) -> list[str]:
    """The relative links of a page of Markdown, as it lies in the tree, whose file or heading is missing."""
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        target = ROOT / "README.md" if target.resolve() == DOCS / "index.md" else target
        heading = bool(fragment) and target.suffix == ".md"
        if ":" not in link and not (target.exists() and (not heading or fragment in headings(target))):
            lost.append(link)
    return lost


def test_the_links_of_the_sources_lead_to_files_and_headings(tmp_path: Path) -> None:
    for page in (ROOT / "README.md", ROOT / "benchmarks" / "RESULTS.md", *DOCS.rglob("*.md")):
        assert lost_links(page) == [], page
    planted = tmp_path / "page.md"
    planted.write_text("# A `b`: c\n[1](#a-b-c) [2](#a-c) [3](page.md#b) [4](gone.md) [5](https://elsewhere.org/x)")
    assert lost_links(planted) == ["#a-c", "page.md#b", "gone.md"]


def test_an_inventory_lists_its_objects_for_mkdocstrings() -> None:
    base, content = hook("inventories").inventory("some", "https://some.org/\nsome.Thing class page.html#some.Thing\n")
    head, body = content.split(b"zlib.\n")
    assert base == "https://some.org/"
    assert head.startswith(b"# Sphinx inventory version 2\n# Project: some\n")
    assert zlib.decompress(body) == b"some.Thing py:class 1 page.html#some.Thing -\n"
    for path in (DOCS / "inventories").glob("*.txt"):
        assert hook("inventories").inventory(path.stem, path.read_text())[0].startswith("https://")


SOUND = {
    "index.html": (
        '<a href="more/index.html#part">1</a><a href="more/#part">2</a><img src="dot.svg"><a href="#top" id="top"></a>'
        '<link rel="stylesheet" href="site.css"><a href="https://elsewhere.org/page#part">3</a>'
    ),
    "more/index.html": '<h2 id="part">part</h2><a href="../index.html#top">up</a><img src="data:image/png;base64,A">',
    "404.html": '<a href="/more/index.html#part">from the root</a>',
    "dot.svg": '<svg xmlns:xlink="http://www.w3.org/1999/xlink"><path id="p"/><use xlink:href="#p"/></svg>',
    "site.css": "body { background: url(dot.svg) }",
}


def built(folder: Path, pages: dict[str, str]) -> Path:
    for name, text in pages.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_links_that_lead_to_files_and_their_parts_are_sound(tmp_path: Path) -> None:
    assert hook("links").broken_links(built(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("planted", "problem"),
    [
        ('<a href="gone.html">', "gone.html is no file"),
        ('<a href="more/index.html#gone">', "more/index.html#gone names no part of its page"),
        ('<a href="#gone">', "#gone names no part of its page"),
        ('<img srcset="dot.svg 1x, gone.png 2x">', "gone.png is no file"),
        ('<script src="//elsewhere.org/a.js">', "//elsewhere.org/a.js is loaded from another host"),
        ('<link href="https://elsewhere.org/a.css">', "https://elsewhere.org/a.css is loaded from another host"),
        ('<style>@import "https://elsewhere.org/f"</style>', "https://elsewhere.org/f is loaded from another host"),
        ('<p style="background: url(gone.png)">', "gone.png is no file"),
    ],
)
def test_a_broken_link_and_a_foreign_host_are_found(tmp_path: Path, planted: str, problem: str) -> None:
    site = built(tmp_path, SOUND | {"index.html": SOUND["index.html"] + planted})
    assert hook("links").broken_links(site) == [f"index.html: {problem}"]


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"[\w/]+\.md", yaml.safe_dump(yaml.safe_load(text)["nav"]))
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_everything_that_is_exported_has_its_docstring_on_a_page() -> None:
    pages = "\n".join(page.read_text() for page in DOCS.rglob("*.md"))
    shown = set(re.findall(r"^::: (untrigger\.[\w.]+)$", pages, re.MULTILINE))
    for package in (datamodules, lightning_modules, callbacks, detection, losses, screening, encoders):
        missing = [name for name in package.__all__ if f"{package.__name__}.{name}" not in shown and name != "PICTURE"]
        assert not missing, (package.__name__, missing)


@pytest.mark.parametrize("folder", ["attacks", "methods", "detectors"])
def test_a_page_has_a_formula_a_figure_its_source_and_when_to_use_it(folder: str) -> None:
    for page in (DOCS / folder).glob("*.md"):
        text = page.read_text()
        for figure in re.findall(r"\]\((\.\./figures/[^)]+)\)", text):
            assert (page.parent / figure).resolve().exists(), f"{page.name}: {figure}"
        if page.name != "index.md":
            assert "```math\n" in text, page
            assert "](../figures/" in text, page
            assert "**Source**" in text, page
            assert re.search(r"\*\*When to use (it|which)\*\*", text), page


@pytest.mark.parametrize("script", ["attacks", "methods", "reference"])
def test_the_figures_are_what_their_script_draws_today(
    tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = DOCS / "figures"
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path)])
    monkeypatch.setattr(sys, "path", [str(figures), *sys.path])
    runpy.run_path(str(figures / f"{script}.py"), run_name="__main__")
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn
    assert drawn <= {path.name for path in (figures / script).iterdir()}
    for name in drawn:
        kept = figures / script / name
        if name.endswith(".jpg"):
            one, other = (np.asarray(Image.open(path), dtype=np.int16) for path in (kept, tmp_path / name))
            assert np.abs(one - other).mean() < 2, name
        else:
            # Where the dots are; how text is drawn differs from one version of Matplotlib to the next.
            dots = [re.findall(r'<use [^>]*y="[^"]*"', path.read_text()) for path in (kept, tmp_path / name)]
            assert dots[0] == dots[1], name


def test_a_trigger_and_a_plan_are_what_the_overview_calls_them() -> None:
    table = (DOCS / "attacks" / "index.md").read_text()
    for name in datamodules.__all__:
        kind = getattr(datamodules, name)
        if issubclass(kind, (Trigger, PoisonPlan)) and name != "Trigger":
            assert f"`{name}`" in table, name
    for config in re.findall(r"`(cifar10\w*\.yaml)`", table):
        assert (ROOT / "configs" / "poisoned_clip" / config).exists(), config
