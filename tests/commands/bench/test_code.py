"""Cells are told apart by the source that made them, and made anew where that is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from untrigger.commands.bench import runner
from untrigger.commands.bench.code import code_after, code_of, package_code
from untrigger.commands.bench.grid import Cell
from untrigger.commands.bench.own_code import own_code
from untrigger.commands.bench.processes import Processes
from untrigger.commands.bench.runner import BenchPaths, Progress, due, run_cells
from untrigger.commands.bench.syntax import syntax_of, tree_of
from untrigger.run_folder.results import COLUMNS, add_results

SOURCES = {
    "command_line/lightning_cli.py": "from .. import datamodules, lightning_modules\nfrom ..contracts import A\n",
    "contracts.py": "A = 1\n",
    "commands.py": "B = 1\n",
    "datamodules/__init__.py": "from .stream import Stream\n",
    "datamodules/stream.py": "class Stream:\n    size = 1\n",
    "datamodules/words.txt": "a\n",
    "lightning_modules/__init__.py": "from .cleanclip import CleanCLIP\nfrom .ubt import UBT\n",
    "lightning_modules/cleanclip.py": "from .losses import Contrastive\nclass CleanCLIP:\n    loss = Contrastive\n",
    "lightning_modules/ubt.py": "from .losses import Forgetting\nfrom .parts.phase import Phase\nclass UBT: ...\n",
    "lightning_modules/parts/phase.py": "def build():\n    return import_module('.lazy', __package__)\n",
    "lightning_modules/parts/lazy.py": "C = 1\n",
    "lightning_modules/losses/__init__.py": "from .forgetting import Forgetting\nfrom .simple import Contrastive\n",
    "lightning_modules/losses/forgetting.py": "class Forgetting: ...\n",
    "lightning_modules/losses/simple.py": "class Contrastive: ...\n",
}


def digests(folder: Path, changes: dict[str, str]) -> list[str]:
    """Of CleanCLIP, of UBT, and of a method of the user's."""
    root = folder / str(len(list(folder.iterdir())))
    for name, text in (SOURCES | changes).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [package_code(root, frozenset({"--model", method})) for method in ("CleanCLIP", "UBT", "mine")]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("contracts.py", [True, True, True]),
        ("datamodules/stream.py", [True, True, True]),
        ("datamodules/words.txt", [True, True, True]),
        ("lightning_modules/cleanclip.py", [True, False, True]),
        ("lightning_modules/ubt.py", [False, True, True]),
        ("lightning_modules/parts/phase.py", [False, True, True]),
        ("lightning_modules/parts/lazy.py", [False, True, True]),
        ("lightning_modules/losses/forgetting.py", [False, True, True]),
        ("lightning_modules/losses/simple.py", [True, False, True]),
        ("commands.py", [False, False, False]),
    ],
)
def test_a_run_is_of_the_code_that_it_uses(tmp_path: Path, name: str, changed: list[bool]) -> None:
    before, after = digests(tmp_path, {}), digests(tmp_path, {name: SOURCES[name] + "\nNEW = 2\n"})
    assert [one != other for one, other in zip(before, after, strict=True)] == changed


def test_comments_docstrings_and_lines_are_no_code(tmp_path: Path) -> None:
    text = '"""What it is."""\n\n\nA = (\n    1  # one\n)\n"""About A."""\n'
    assert digests(tmp_path, {"contracts.py": text}) == digests(tmp_path, {})


def test_the_package_itself_tells_its_methods_apart() -> None:
    cells = [cell("poisoned_clip/cifar10.yaml"), cell("cleanclip/cifar10.yaml"), cell("ubt/cifar10.yaml")]
    assert len({code_of(each) for each in cells}) == 3
    later = cell("cleanclip/cifar10.yaml", cells[0])
    assert code_of(later) == code_after(later, [code_of(cells[0])]) != code_of(cells[1])


def cell(config: str = "poisoned_clip/cifar10.yaml", *needs: Cell, name: str = "a") -> Cell:
    return Cell("a", "none", 0, name, config, (), {str(index): each for index, each in enumerate(needs)})


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BenchPaths:
    """Where cells are run that end at once, with a checkpoint."""

    def call(self: Processes, command: list[str], *_: Any) -> tuple[int, float]:
        folder = Path(command[-1])
        add_results(folder, [dict.fromkeys(COLUMNS, "1")])
        (folder / "last.ckpt").write_text("weights")
        return 0, 1.0

    monkeypatch.setattr(Processes, "call", call)
    monkeypatch.setattr(runner, "last_checkpoint", lambda run: None)
    return BenchPaths(tmp_path / "runs", tmp_path / "records", tmp_path / "tables", None)


def test_what_other_code_made_is_stale_and_made_anew_where_it_is_asked_for(paths: BenchPaths) -> None:
    poisoned = cell(name="poisoned")
    cleaned = cell("cleanclip/cifar10.yaml", poisoned, name="cleaned")
    cells = [poisoned, cleaned]
    assert run_cells(due(cells, paths), paths, 1, Progress()) == {}
    assert [paths.stale(each) for each in cells] == [False, False]
    assert "stale" not in paths.results(cleaned)[0]

    def made_by(other: Cell, code: str | None) -> None:
        record = json.loads(paths.record(other).read_text())
        record.pop("code")
        paths.record(other).write_text(json.dumps(record | ({"code": code} if code else {})))

    made_by(poisoned, None)  # by a release that left none
    (paths.run(cleaned) / "kept").write_text("")
    assert [paths.stale(each) for each in cells] == [True, False]
    assert paths.results(poisoned)[0]["stale"] == "stale"
    assert due(cells, paths) == []
    # What starts from a stale run is as stale, whenever it is run.
    assert run_cells([cleaned], paths, 1, Progress(), anew={cleaned.id}) == {}
    assert (paths.run(cleaned) / "kept").exists(), "a cell that is not stale stays as it is"
    paths.record(cleaned).unlink()
    run_cells(due(cells, paths), paths, 1, Progress())
    assert [paths.stale(each) for each in cells] == [True, True]

    stale = {each.id for each in cells if paths.stale(each)}
    (paths.run(poisoned) / "kept").write_text("")
    assert due(cells, paths, stale) == cells
    assert run_cells(cells, paths, 1, Progress(), stale) == {}
    assert [paths.stale(each) for each in cells] == [False, False]
    assert not (paths.run(poisoned) / "kept").exists()


def test_nothing_starts_from_a_run_that_was_stopped_while_it_was_repeated_for_its_checkpoint(paths: BenchPaths) -> None:
    poisoned = cell(name="poisoned")
    cells = [poisoned, cell("cleanclip/cifar10.yaml", poisoned, name="cleaned")]
    run_cells(due(cells, paths)[:1], paths, 1, Progress())
    assert due(cells, paths) == cells[1:]
    # On another machine, with the record alone: an epoch was run, then the bench was stopped.
    (paths.run(poisoned) / "cell.json").unlink()
    (paths.run(poisoned) / "last.ckpt").write_text("weights of the first epoch")
    assert due(cells, paths) == cells
    assert run_cells(cells, paths, 1, Progress()) == {}
    assert (paths.run(poisoned) / "last.ckpt").read_text() == "weights"
    assert due(cells, paths) == []


def test_a_resumed_run_is_of_the_code_that_it_began_with(paths: BenchPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned = cell(name="poisoned")
    run_cells([poisoned], paths, 1, Progress())
    paths.record(poisoned).unlink()
    paths.code(poisoned).write_text("earlier")
    monkeypatch.setattr(runner, "last_checkpoint", lambda run: str(run / "last.ckpt"))
    monkeypatch.setattr(runner, "fit_arguments", lambda cell, paths: [str(paths.run(cell))])
    monkeypatch.setattr(Processes, "call", lambda self, *_: (0, 1.0))
    run_cells([poisoned], paths, 1, Progress())
    assert json.loads(paths.record(poisoned).read_text())["code"] == "earlier"
    assert paths.stale(poisoned)


def test_own_classes_count_with_what_they_import(tmp_path: Path) -> None:
    """A trigger's, a method's and an imported module's file, and their helpers; nothing else, and not the package."""
    own = {
        "my_study.py": "from helpers.paint import grey\nclass Corner: ...\n",
        "helpers/__init__.py": "",
        "helpers/paint.py": "from . import shades\ngrey = shades.GREY\n",
        "helpers/shades.py": "GREY = 255\n",
        "registered.py": "A = 1\n",
        "unrelated.py": "B = 1\n",
        "trainer/__init__.py": "C = 1\n",
    }
    texts = ["ubt/cifar10.yaml", "--trainer.max_epochs", "2", "--imports", '["registered"]']
    texts += ["--data.poison", '{"class_path": "PoisonPlan", "init_args": {"trigger": "my_study.Corner"}}']

    def code(changes: dict[str, str]) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in (own | changes).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return own_code(folder, folder / "trainer", texts)

    before = code({})
    for name in ("my_study.py", "helpers/paint.py", "helpers/shades.py", "registered.py"):
        assert code({name: own[name] + "D = 2\n"}) != before, name
        assert code({name: own[name] + "# a comment\n"}) == before, name
    for name in ("unrelated.py", "trainer/__init__.py"):
        assert code({name: own[name] + "D = 2\n"}) == before, name
    assert own_code(tmp_path / "0", tmp_path, texts) == ""
    assert code({"my_study.py": "def broken(:\n"}) != before  # told when a run imports it


def test_an_own_class_makes_a_cell_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_study.py").write_text("class Corner:\n    grey = 255\n")
    asked = ["--data.poison.trigger", "my_study.Corner"]
    cell = Cell("a", "none", 0, "a", "poisoned_clip/cifar10.yaml", tuple(asked), {})
    before = code_of(cell)
    Path("my_study.py").write_text("class Corner:\n    grey = 10\n")
    tree_of.cache_clear()
    syntax_of.cache_clear()
    assert code_of(cell) != before
