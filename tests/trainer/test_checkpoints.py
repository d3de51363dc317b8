from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from untrigger.contracts import UserMistake
from untrigger.trainer import checkpoints
from untrigger.trainer.checkpoints import WholeCheckpointIO, last_checkpoint, whole_checkpoint


def write(path: Path, number: int) -> None:
    WholeCheckpointIO().save_checkpoint({"tensor": torch.full((1000,), number)}, path)


def read(path: Path | str) -> int:
    return int(WholeCheckpointIO().load_checkpoint(path, weights_only=True)["tensor"][0])


def test_the_one_before_is_kept_beside_the_last_one_and_nothing_else(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "run" / "last.ckpt", number)
        write(tmp_path / "run" / "best.ckpt", number)
    assert {path.name: read(path) for path in (tmp_path / "run").iterdir()} == {
        "last.ckpt": 2,
        "previous.ckpt": 1,
        "best.ckpt": 2,
    }


def test_what_a_killed_writer_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".last.ckpt.1.tmp").write_bytes(b"half")
    write(tmp_path / "last.ckpt", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_without_links_the_one_before_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    for number in range(2):
        write(tmp_path / "last.ckpt", number)
    assert (read(tmp_path / "last.ckpt"), read(tmp_path / "previous.ckpt")) == (1, 0)


@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_full_disk_leaves_both_as_they_were(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        write(tmp_path / "last.ckpt", number)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if step == "fsync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr(checkpoints, "open_whole", lambda path: Path("/dev/full").open("wb"))  # noqa: SIM115
        with pytest.raises(UserMistake, match=r"cannot be written: No space left on device; .* is still the one"):
            write(tmp_path / "last.ckpt", 2)
    assert {path.name: read(path) for path in tmp_path.iterdir()} == {"last.ckpt": 1, "previous.ckpt": 0}


@pytest.mark.parametrize("left", [0, 3, 500, None])
def test_a_last_one_that_is_cut_off_or_missing_gives_way_to_the_one_before(left: int | None, tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    assert last_checkpoint(tmp_path) is None
    for number in range(2):
        write(last, number)
    assert last_checkpoint(tmp_path) == whole_checkpoint(str(last)) == str(last)
    content = last.read_bytes()
    last.unlink() if left is None else last.write_bytes(content[:left])
    with pytest.warns(UserWarning, match="is missing" if left is None else "is cut off"):
        found = whole_checkpoint(str(last))
    assert read(found) == 0
    with pytest.warns(UserWarning, match="resumes from the checkpoint before"):
        assert last_checkpoint(tmp_path) == found
