from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from shard_files import members

from untrigger.commands.shards.class_order import named_positions, number_order
from untrigger.commands.shards.command import shards_from_folder, shards_from_torchvision
from untrigger.contracts import UserMistake

FILE = Path("names.txt")
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["10", "2", "1"], ["1", "2", "10"]),
        (["010", "2", "1"], ["1", "2", "010"]),
        (["class_10", "class_9"], ["class_9", "class_10"]),
        (["10.bird", "2.cat"], ["2.cat", "10.bird"]),
        (["n02", "n01", "cat"], ["cat", "n01", "n02"]),
        (["2", "cat", "10"], ["2", "10", "cat"]),
        (["737-1000", "737-200"], ["737-200", "737-1000"]),
        (["v2_10", "v2_9", "v1_11"], ["v1_11", "v2_9", "v2_10"]),
        (["part1-2", "part1-11", "part1-0"], ["part1-0", "part1-2", "part1-11"]),
        (["b10", "b9", "a2"], ["a2", "b9", "b10"]),
        (["01", "1"], ["01", "1"]),
    ],
)
def test_numbered_names_are_in_the_order_of_their_numbers(names: list[str], ordered: list[str]) -> None:
    assert number_order(names) == ordered


@pytest.mark.parametrize(
    ("own", "given", "positions"),
    [
        (["0", "1", "10", "2"], ["a", "b", "c", "d"], [0, 1, 3, 2]),
        (["0", "1", "10", "2"], ["2", "1", "0", "10"], [2, 1, 3, 0]),
        (["cat", "sea_lion"], ["Sea lion", "cat"], [1, 0]),
        (["n1", "n2"], ["tench", "goldfish"], [0, 1]),
        (["cat", "dog"], ["cat", "hound"], [0, 1]),
        (["n1", "n2"], ["crane", "crane"], [0, 1]),
        (["10", "9"], ["nine", "ten"], [1, 0]),
        (["0", "10", "2", "other"], ["a", "b", "c", "none"], [0, 2, 1, 3]),
        (["v2_10", "v2_9"], ["nine", "ten"], [1, 0]),
        (["A380", "DC3"], ["A380 Airbus", "DC3 Douglas"], [0, 1]),
        (["cat", "dog"], ["cat (pet)", "dog (pet)"], [0, 1]),
        (["A380", "DC-10", "DC-3"], ["Airbus", "Douglas", "Dakota"], [0, 1, 2]),  # no numbering
    ],
)
def test_each_class_gets_the_name_that_is_meant_for_it(own: list[str], given: list[str], positions: list[int]) -> None:
    assert named_positions(own, given, FILE, "folder") == positions


def test_names_of_other_classes_are_refused() -> None:
    with pytest.raises(
        UserMistake, match=r"names\.txt says 'dog' as its name 1, but the folder of that name is number 2"
    ):
        named_positions(["cat", "dog", "ship"], ["dog", "kitten", "ship"], FILE, "folder")


@pytest.mark.parametrize(
    ("own", "given"),
    [
        (["n01440764", "n01443537"], ["n01443537 goldfish", "n01440764 tench"]),
        (["n01440764", "n01443537"], ["n01440764 tench", "n01443537 goldfish"]),
        (["0", "1", "10", "2"], ["0: zero", "1: one", "2: two", "10: ten"]),
        (["0", "1", "2"], ["2,two", "1,one", "0,zero"]),
        (["cat", "dog"], ["dog (pet)", "cat (pet)"]),
    ],
)
def test_a_file_of_pairs_of_folder_and_name_is_refused(own: list[str], given: list[str]) -> None:
    with pytest.raises(UserMistake, match=r"names\.txt has the folder's name in each line, as in '.*: give the class"):
        named_positions(own, given, FILE, "folder")


def write_numbered(root: Path) -> tuple[Path, Path]:
    for number in range(12):
        (root / "pictures" / str(number)).mkdir(parents=True)
        Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(root / "pictures" / str(number) / "one.png")
    (root / "names.txt").write_text("\n".join(NUMBERS))
    return root / "pictures", root / "names.txt"


@pytest.mark.parametrize("source", ["folder", "torchvision"])
def test_numbered_folders_keep_their_names(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, names = write_numbered(tmp_path)
    if source == "folder":
        shards_from_folder(pictures, tmp_path / "set", zero_shot=True, classnames=names)
    else:
        arguments = {"root": str(pictures)}
        shards_from_torchvision(
            "ImageFolder", tmp_path / "set", root=pictures, dataset_args=arguments, zero_shot=True, classnames=names
        )
    said = " is 'zero', 1 is 'one', 2 is 'two', ..., 11 is 'eleven'"
    assert f"class names by {'folder' if source == 'folder' else 'class'}: 0{said}" in capsys.readouterr().err
    written = (tmp_path / "set" / "classnames.txt").read_text().splitlines()
    assert written == NUMBERS
    found = members(tmp_path / "set" / "test" / "0.tar")
    labels = {
        Image.open(io.BytesIO(data)).getpixel((0, 0))[0] // 20: int(found[name.replace(".png", ".cls")])  # type: ignore[index]
        for name, data in found.items()
        if name.endswith(".png")
    }
    assert labels == {number: number for number in range(12)}
