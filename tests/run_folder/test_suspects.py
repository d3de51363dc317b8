"""The table of suspects: every reader sees what was written."""

from __future__ import annotations

from pathlib import Path

from untrigger.run_folder.suspects import (
    SuspectCounts,
    SuspectRow,
    count_suspects,
    first_suspects,
    poisoned_keys,
    write_suspects,
)


def test_what_is_written_is_read_back_by_every_reader(tmp_path: Path) -> None:
    rows = [
        SuspectRow("=1+1", "a dog\x1b[2J", [0.5, 0.25], ["dog", "-ish"], "poisoned"),
        SuspectRow("b", "x" * 500, [0.1, float("nan")], ["dog"], "suspicious"),
        SuspectRow("c", "", [0.0, 0.0], [], "suspicious"),
    ]
    write_suspects(tmp_path, ["=score", "last"], rows)
    (tmp_path / "suspects.png").write_bytes(b"")
    found = first_suspects(tmp_path, rows=2, columns=3, letters=10)
    assert found is not None
    assert found.columns == ["key", "caption", "=score"]
    assert found.rows == [["=1+1", "a dog [2J", "0.500000"], ["b", "xxxxxxxxx…", "0.100000"]]
    assert found.sheet == tmp_path / "suspects.png"
    assert count_suspects(tmp_path) == SuspectCounts(1, 2, ["dog", "-ish"])
    assert poisoned_keys(tmp_path) == {"=1+1"}
    assert not list(tmp_path.glob("*.tmp"))


def test_a_folder_without_a_table_has_none(tmp_path: Path) -> None:
    assert first_suspects(tmp_path, 1, 1, 1) is None
    assert count_suspects(tmp_path) is None
