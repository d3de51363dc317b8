from __future__ import annotations

from pathlib import Path

import pytest

from untrigger.files.writing import new_folder, open_whole, write_text


def test_a_file_appears_whole(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    with open_whole(file) as stream:
        stream.write(b"half")
        assert not file.exists()
        stream.write(b" and half")
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]
    assert file.read_bytes() == b"half and half"


def test_a_failure_leaves_the_earlier_file(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    write_text(file, "earlier, größer")
    with pytest.raises(TypeError), open_whole(file) as stream:
        stream.writelines([b"half", "no bytes"])  # type: ignore[list-item]
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]
    assert file.read_text(encoding="utf-8") == "earlier, größer"


def test_a_folder_appears_whole_and_replaces_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    with new_folder(folder) as unfinished:
        (unfinished / "a.txt").write_text("a")
        assert not folder.exists()
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    with pytest.raises(OSError, match="not empty"), new_folder(folder) as unfinished:
        (unfinished / "a.txt").write_text("b")
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "other"):
        raise ZeroDivisionError
    assert (folder / "a.txt").read_text() == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
