from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from untrigger.commands.shards.picture_folders import ClassFolders, class_folders, class_pictures
from untrigger.contracts import UserMistake


def write_pictures(root: Path, folders: Sequence[str]) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(root / folder / "one.png")
    return root


def found(root: Path) -> ClassFolders:
    return class_pictures(root, list(enumerate(sorted(class_folders(root)))))


@pytest.mark.parametrize("splits", [("train", "val"), ("Train", "Test", "valid"), ("train",)])
def test_folders_of_splits_are_no_classes(splits: tuple[str, ...], tmp_path: Path) -> None:
    write_pictures(tmp_path, [f"{split}/{name}" for split in splits for name in ("cat", "dog")])
    with pytest.raises(
        UserMistake, match=rf"holds no classes but splits \({', '.join(sorted(splits))}\), .*: give one"
    ):
        found(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert len(found(write_pictures(tmp_path / "vehicles", ["train", "bus/red"])).files) == 2
    assert len(found(write_pictures(tmp_path / "alone", ["train"])).files) == 1
    assert not found(tmp_path / "alone").report


def test_it_is_told_where_all_pictures_lie_below_the_folders_of_the_classes(tmp_path: Path) -> None:
    below = found(write_pictures(tmp_path / "below", ["animal/cat", "animal/dog", "thing/car"]))
    assert "no picture lies in the folder of a class itself, and of" in below.report
    assert below.report.endswith("animal/cat the name is not read")
    assert not found(write_pictures(tmp_path / "mixed", ["animal", "animal/dog", "thing/car"])).report
