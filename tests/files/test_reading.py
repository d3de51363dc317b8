from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from untrigger.contracts import UserMistake
from untrigger.datamodules.shards.tar import tar_members
from untrigger.datamodules.triggers import GivenPicture
from untrigger.files.reading import read_bytes, read_json, read_lines, read_text, reading, shown, user_path
from untrigger.files.tables import open_table
from untrigger.lightning_modules.encoders.checkpoint_files import read_tensors
from untrigger.run_folder.curves import read_curves
from untrigger.run_folder.evaluation import read_evaluation
from untrigger.run_folder.results import read_results


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("plans"), "it lacks 'plans'"),
        (ValueError("two\nlines \x1b[31m"), r"two lines \[31m \(ValueError\)"),
        (OverflowError(), "OverflowError"),
        (RecursionError("maximum"), "it is nested too deeply"),
        (MemoryError(), "it asks for more memory than there is"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (ValueError("x" * 10_000), r"x{200}… \(ValueError\)"),
    ],
)
def test_whatever_a_parser_raises_becomes_one_line(error: Exception, said: str) -> None:
    with pytest.raises(UserMistake, match=f"^table a.csv cannot be read: {said}$") as caught, reading("table", "a.csv"):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("passing", [UserMistake("known"), KeyboardInterrupt(), SystemExit(1)])
def test_what_is_said_already_and_what_ends_a_program_pass(passing: BaseException) -> None:
    with pytest.raises(type(passing)) as caught, reading("table", "a.csv"):
        raise passing
    assert caught.value is passing


def test_texts_and_lines_are_read_with_a_byte_order_mark_and_any_line_ends(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbfcat\r\n\r\n dog\x1cfox \rbird\xe2\x80\xa8wing\n")
    assert read_lines(tmp_path / "names.txt", "names") == ["cat", "dog\x1cfox", "bird\u2028wing"]
    assert read_text(tmp_path / "names.txt", "names").startswith("cat\r\n")
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json", "sizes") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe{\x00}\x00", r"it is not UTF-8 text \(byte 0xff at 0\); it looks like UTF-16 text"),
        (b'{"a": \xe9}', r"it is not UTF-8 text \(byte 0xe9 at 6\)"),
        (b"{", r"it is not JSON \(line 1, column 2: .*\)"),
        (b"<!DOCTYPE html><p>", r"it is not JSON .*; it looks like a web page, as .*"),
        (b"PK\x03\x04\xff", r"it is not UTF-8 text .*; it looks like a zip archive.*"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"9" * 5_000, r".*digits.*"),
    ],
)
def test_a_file_of_another_kind_is_reported_with_what_it_is(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserMistake, match=f"^sizes .*a.json cannot be read: {said}$"):
        read_json(tmp_path / "a.json", "sizes")


def test_only_regular_files_up_to_a_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(2_000))
    os.mkfifo(tmp_path / "pipe")
    for path, said in {
        tmp_path / "large": "is larger than 1999 bytes",
        tmp_path / "pipe": "is not a regular file",
        tmp_path: "is a folder; give a file",
        tmp_path / "none": "cannot be read: it does not exist",
        tmp_path / ("n" * 300): "cannot be read: File name too long",
        tmp_path / "nul\0": "cannot be read: embedded null byte",
    }.items():
        with pytest.raises(UserMistake, match=said):
            read_bytes(path, "table", most=1_999)
    assert len(read_bytes(tmp_path / "large", "table", most=2_000)) == 2_000


def test_a_path_that_the_system_does_not_take_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert user_path("~/model", "model") == Path("/somewhere/model")
    for path in ("~nosuchuser/model", "m" * 300):
        with pytest.raises(UserMistake, match=r"^model .* cannot be read: "):
            user_path(path, "model")


def test_a_path_in_a_message_steers_no_terminal() -> None:
    assert shown("plain name é.csv") == "plain name é.csv"
    assert shown("red \x1b[31m\udce9") == r"'red \x1b[31m\udce9'"
    assert len(shown("x" * 5_000)) < 350


def test_a_pipe_is_reported_at_every_door_before_it_is_opened(tmp_path: Path) -> None:
    doors: dict[str, Callable[[Path], object]] = {
        "results.csv": lambda path: read_results(path.parent),
        "evaluation.npz": lambda path: read_evaluation(path.parent),
        "metrics.csv": lambda path: read_curves(path.parent),
        "0.tar": lambda path: list(tar_members(str(path))),
        "given.tar": lambda path: GivenPicture(["a.png"], str(path)),
        "table.csv": lambda path: open_table(str(path), "table").__enter__(),
        "weights.safetensors": read_tensors,
        "model.ckpt": read_tensors,
    }
    for name, read in doors.items():
        path = tmp_path / name.partition(".")[0] / name
        path.parent.mkdir()
        os.mkfifo(path)
        with pytest.raises(UserMistake, match=rf"{name} is not a|there is no checkpoint .*{name}"):
            read(path)


def test_a_pointer_instead_of_a_checkpoint_is_reported(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.ckpt"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n")
        with pytest.raises(UserMistake, match=rf"{name} .*a pointer of Git LFS"):
            read_tensors(tmp_path / name)
