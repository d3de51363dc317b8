from __future__ import annotations

from pathlib import Path

import pytest

from untrigger.files import open_whole, write_text


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
