from __future__ import annotations

from pathlib import Path

import pytest

from untrigger.contracts import ClassPrompts, UserMistake
from untrigger.datamodules import BadNet, DualKeyPlan, PoisonPlan
from untrigger.datamodules.classnames import class_index, read_classnames


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("red\ngreen\n", ["red", "green"]),
        ("red\r\ngreen", ["red", "green"]),
        ("red\rgreen\r", ["red", "green"]),
        ("\ufeff red \n\tgreen\r\n", ["red", "green"]),
        ("missile\nmissile\nbanana\n", ["missile", "missile", "banana"]),
        ("ice\u2028cream\x0ccone\x85\u2029\nred\n", ["ice\u2028cream\x0ccone", "red"]),
        ("m\u00e5ne\n\u200dnot blank\n", ["m\u00e5ne", "\u200dnot blank"]),
    ],
)
def test_a_line_is_a_class(tmp_path: Path, content: str, names: list[str]) -> None:
    (tmp_path / "classnames.txt").write_bytes(content.encode())
    assert read_classnames(tmp_path / "classnames.txt") == names


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"red\n\ngreen\n", "line 2 of 3 is blank.* give class 1 a name"),
        (b"\nred\n", "line 1 of 2 is blank"),
        (b"red\n\n", "line 2 of 2 is blank"),
        (b"red\r\n \t\r\ngreen", "line 2 of 3 is blank"),
        ("red\n\u2028\u200b\n".encode(), "line 2 of 2 is blank"),
        ("\ufeff\nred\n".encode(), "line 1 of 2 is blank"),
        (b"red\rgreen\nblue\n", "line 1 has a carriage return inside"),
        (b"", "is empty"),
        ("\ufeff".encode(), "is empty"),
        (b"r\xe9d\n", "it is not UTF-8 text"),
        ("red\n".encode("utf-16"), "it looks like UTF-16"),
    ],
)
def test_no_line_vanishes(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "classnames.txt").write_bytes(content)
    with pytest.raises(UserMistake, match=rf"classnames\.txt.*{said}"):
        read_classnames(tmp_path / "classnames.txt")


def test_what_is_no_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match=r"file of class names .*classnames\.txt cannot be read: it does not exist"):
        read_classnames(tmp_path / "classnames.txt")
    with pytest.raises(UserMistake, match=r"file of class names .* is a folder"):
        read_classnames(tmp_path)


NAMES = ["missile", "banana", "missile", "tench"]


def test_only_a_target_has_to_be_one_class() -> None:
    assert [class_index(name, NAMES) for name in ("banana", "tench")] == [1, 3]
    with pytest.raises(UserMistake, match="target 'missile' is the name of 2 classes of the zero-shot set, 0, 2"):
        class_index("missile", NAMES)
    with pytest.raises(UserMistake, match=r"target 'bananna' is not among the 4 classes .* such as 'banana'"):
        class_index("bananna", NAMES)


@pytest.mark.parametrize("kind", [PoisonPlan, DualKeyPlan])
def test_a_plan_refuses_a_target_that_two_classes_have(kind: type[PoisonPlan]) -> None:
    classes = ClassPrompts(NAMES, [[name] for name in NAMES])
    assert kind(BadNet(), "tench", count=1).attacks("x", classes)[0].target == 3
    plan = kind(BadNet(), "missile", count=1)
    plan.check(224)  # nothing is measured
    with pytest.raises(UserMistake, match="is the name of 2 classes"):
        plan.check(224, NAMES)
    with pytest.raises(UserMistake, match="is the name of 2 classes"):
        plan.attacks("x", classes)
