from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from untrigger.contracts import UserMistake
from untrigger.files import lock as run_lock
from untrigger.files.lock import held_folder


def test_a_folder_is_held_by_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_PATIENCE", 0.3)
    folder = tmp_path / "deep" / "run"
    with held_folder(folder):
        with held_folder(folder):  # a part of the same run
            pass
        assert run_lock._held == {str(folder.resolve())}
        (folder / "config.yaml").write_text("")
    other = os.open(folder, os.O_RDONLY)  # as another process does
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(UserMistake, match=r"another run is going on in .*run: wait"), held_folder(folder):
        pass
    os.close(other)
    with held_folder(folder):
        pass
    assert not run_lock._held


def test_a_folder_that_cannot_be_made_is_the_systems_to_tell(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError), held_folder(tmp_path / "file" / "run"):
        pass


def test_a_file_is_no_folder_to_hold(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserMistake, match=r"file is a file, and no folder: give another --out"):
        held_folder(tmp_path / "file", "--out").__enter__()


def test_an_empty_folder_that_its_run_gives_up_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, lock, times = tmp_path / "run", run_lock._lock, []

    def given_up_meanwhile(descriptor: int, name: str, option: str, until: float) -> None:
        lock(descriptor, name, option, until)
        times.append(name)
        if len(times) == 1:
            folder.rmdir()

    monkeypatch.setattr(run_lock, "_lock", given_up_meanwhile)
    with held_folder(folder):
        assert folder.is_dir()
        (folder / "config.yaml").write_text("")
    assert len(times) == 2
    assert folder.is_dir()
