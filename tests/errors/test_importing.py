"""What holds while libraries are imported, and what is left of it after."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from untrigger.errors.importing import importing


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    frozen = gc.get_freeze_count()
    yield
    gc.enable()
    if not frozen:
        gc.unfreeze()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "a_module_of_lists.py").write_text("lists = [[] for _ in range(1000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "a_module_of_lists"
    sys.modules.pop("a_module_of_lists", None)


def test_no_garbage_is_looked_for_within_and_again_after(module: str) -> None:
    before = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()
        import_module(module)
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + 1000


def test_garbage_is_not_kept_where_everything_had_been_imported() -> None:
    before = gc.get_freeze_count()
    with importing():
        import_module("json")
    assert gc.get_freeze_count() <= before  # of what had been frozen, something may be gone


def test_who_had_it_off_has_it_off(module: str) -> None:
    gc.disable()
    with importing():
        import_module(module)
    assert not gc.isenabled()


def test_it_is_on_after_an_import_that_fails() -> None:
    with pytest.raises(ModuleNotFoundError), importing():
        import_module("no_such_module_anywhere")
    assert gc.isenabled()


def test_ctrl_c_is_a_line_within() -> None:
    before = signal.getsignal(signal.SIGINT)
    with importing():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
