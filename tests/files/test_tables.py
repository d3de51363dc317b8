from __future__ import annotations

from pathlib import Path

import pytest

from untrigger.contracts import UserMistake
from untrigger.files.tables import QUOTES, SURPLUS, open_table, plain_cell, text_cell


def rows(path: Path, content: bytes) -> list[tuple[int, str, str, str]]:
    path.write_bytes(content)
    with open_table(path, "table") as table:
        table.require("a", "b")
        return [(row.line, row.cells["a"], row.cells["b"], row.fault) for row in table]


def test_rows_come_as_they_are_with_a_word_for_doubtful_ones(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3\r\n"4,5","6 ""7"""\r\n8,9,10\r\n"11" 12,13\r\n\xff,"14\r\n15"\r\n'
    assert rows(tmp_path / "t.csv", content) == [
        (2, "1", "2", ""),
        (4, "3", "", ""),
        (5, "4,5", '6 "7"', ""),
        (6, "8", "9", SURPLUS),
        (7, "", "", QUOTES),
        (9, "\udcff", "14\r\n15", ""),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,c\n", r"has no column 'b': its columns are \['a', 'c'\]"),
        (b"", "has no column 'a'"),
        (b"a,b,a\n", "has two columns 'a'"),
        (b'a,b\n1,2\n3,"4\n5,6\n', r"is not CSV after line 2 \(unexpected end of data\)"),
        (b'a,b\n1,2\n3,"4\n5,6" 7\n', "is not CSV after line 2"),
        (b"a,b\n1," + b"x" * 200_000, "is not CSV after line 1"),
        (b"a,b\n1," + b"x" * 2_000_000, "has a line of more than 1,048,576 characters"),
        (b"\xff\xfea\0,\0b\0", "is no table; it looks like UTF-16 text"),
    ],
)
def test_a_file_that_is_no_table_is_reported(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=rf"^table .*t\.csv {said}"):
        rows(tmp_path / "t.csv", content)


@pytest.mark.parametrize("text", ["=1", "'=1", "''=1", "'", "'a", "", "a", "\t", "-", "''-", " =1", "' '=", "＝1"])  # noqa: RUF001
def test_a_quote_in_front_is_taken_off_again(text: str) -> None:
    cell = text_cell(text)
    assert plain_cell(cell) == text
    assert not cell.lstrip().startswith(("=", "-", "＝"))  # noqa: RUF001


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "=\x07", "a\nb", "\x9b", "\udc9b", "\u202eb", "a\u2028", '\'"a"', "'\"", "\t'\""]
)
def test_control_characters_come_back_from_a_cell_that_shows_none(text: str) -> None:
    cell = text_cell(text)
    assert plain_cell(cell) == text
    assert cell.isascii()
    assert cell.isprintable()
    assert cell.startswith("'\"")
