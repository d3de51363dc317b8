"""What goes in is counted against what comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_files import files, members

from untrigger.commands.shards.command import shards_from_csv, shards_from_folder
from untrigger.contracts import UserMistake


def picture(path: Path, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def table(folder: Path, captions: dict[int, str], total: int) -> Path:
    picture(folder / "p.png")
    lines = [f"p.png,{captions.get(number, f'a photo number {number}')}\n" for number in range(total)]
    (folder / "pairs.csv").write_text("image,caption\n" + "".join(lines))
    return folder / "pairs.csv"


def test_a_comma_without_quotes_costs_its_row_and_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = table(tmp_path, {3: "a dog, running", 5: '"big" dog', 7: '"a dog, running"'}, 10)
    shards_from_csv(source, tmp_path / "out", max_bad_share=0.5)
    texts = [data.decode() for name, data in members(tmp_path / "out/00000.tar").items() if name.endswith("txt")]
    assert texts == [f"a photo number {n}" if n != 7 else "a dog, running" for n in range(10) if n not in (3, 5)]
    assert "wrote 8 pictures in 1 shards" in (said := capsys.readouterr().out)
    assert "skipped 2 (more cells than columns, as of an unquoted delimiter 1, quotes inside a cell 1)" in said
    with pytest.raises(UserMistake, match=r"1 of 10 samples cannot be used \(more cells"):
        shards_from_csv(source, tmp_path / "strict")


def test_rows_between_two_stray_quotes_are_not_one_caption(tmp_path: Path) -> None:
    source = table(tmp_path, {2: '"a big dog', 8: 'a small dog"'}, 10)
    with pytest.raises(UserMistake, match=r"pairs\.csv: a quote that is opened in line 4 is closed in line 10 only"):
        shards_from_csv(source, tmp_path / "out", max_bad_share=1)
    assert not files(tmp_path / "out")


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("caption,image", ["red,p.png", '"a big dog,p.png', 'a small dog",p.png', "blue,p.png"]),
        ("id,caption,image", ["0,red,p.png", '1,"a big dog,p.png', '2,a small dog",p.png', "3,blue,p.png"]),
        ("image,caption,id", ["p.png,red,0", 'p.png,"a big dog,1', 'p.png,a small dog",2', "p.png,blue,3"]),
    ],
)
def test_rows_between_two_stray_quotes_are_found_wherever_the_caption_stands(
    header: str, rows: list[str], tmp_path: Path
) -> None:
    source = table(tmp_path, {}, 0)
    source.write_text("\n".join([header, *rows]) + "\n")
    with pytest.raises(UserMistake, match=r"pairs\.csv: a quote that is opened in line 3 is closed in line 4 only"):
        shards_from_csv(source, tmp_path / "out", max_bad_share=1)


def test_a_caption_of_several_lines_before_its_picture_is_no_stray_quote(tmp_path: Path) -> None:
    source = table(tmp_path, {}, 0)
    source.write_text('caption,image\n"a dog, big\nand brown, too",p.png\n"a cat.png, they say\nindeed",p.png\n')
    shards_from_csv(source, tmp_path / "out")
    texts = [data.decode() for name, data in members(tmp_path / "out/00000.tar").items() if name.endswith("txt")]
    assert texts == ["a dog, big and brown, too", "a cat.png, they say indeed"]


def test_a_comma_too_many_at_the_end_of_the_header_hides_no_surplus(tmp_path: Path) -> None:
    source = table(tmp_path, {}, 0)
    source.write_text("image,caption,\np.png,red,\np.png,a dog, running\np.png,blue,\n")
    with pytest.raises(UserMistake, match=r"1 of 3 samples cannot be used \(more cells than columns"):
        shards_from_csv(source, tmp_path / "out")
    # What pandas puts in front is no surplus.
    source.write_text(",image,caption\n0,p.png,red\n1,p.png,blue\n")
    shards_from_csv(source, tmp_path / "out")


def test_rows_that_end_with_the_caption_are_told_where_others_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = table(tmp_path, {}, 0)
    source.write_text("image,caption,url\np.png,red\np.png,a dog, running\np.png,blue\n")
    shards_from_csv(source, tmp_path / "out")
    assert "rows without any cell after the caption: 2 of 3; in the others, what follows" in capsys.readouterr().out
    source.write_text("image,caption,url\np.png,red,\np.png,blue,u\n")
    shards_from_csv(source, tmp_path / "whole")
    assert "rows without" not in capsys.readouterr().out


def test_a_blank_before_the_quotes_is_a_fault_of_the_row(tmp_path: Path) -> None:
    source = table(tmp_path, {1: ' "a dog"'}, 3)
    with pytest.raises(UserMistake, match=r"1 of 3 samples cannot be used \(quotes inside a cell 1\)"):
        shards_from_csv(source, tmp_path / "out")


def test_what_a_nas_or_a_mac_adds_is_no_class_and_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("cat", "dog", "_owl")):
        picture(tmp_path / "pets" / name / "0.png", number)
        picture(tmp_path / "pets" / name / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.jpg", number)
    for name in ("@eaDir", "__MACOSX", "lost+found"):
        picture(tmp_path / "pets" / name / "cat" / "0.png")
    (tmp_path / "pets" / "cat" / "same.png").symlink_to(tmp_path / "pets" / "dog" / "0.png")
    shards_from_folder(tmp_path / "pets", tmp_path / "set", zero_shot=True)
    assert sorted((tmp_path / "set" / "classnames.txt").read_text().splitlines()) == ["cat", "dog", "owl"]
    assert sum(name.endswith("png") for name in members(tmp_path / "set" / "test" / "0.tar")) == 3
    said = capsys.readouterr().out
    assert "6 hidden files or folders" in said
    assert "1 links to a picture of another class" in said


def test_hidden_folders_are_left_out_and_links_followed_both_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        picture(tmp_path / "pets" / "cat" / f"{number}.png", number)
        picture(tmp_path / "pets" / "cat" / ".thumbnails" / f"{number}.png", number)
        picture(tmp_path / "elsewhere" / f"{number}.png", 10 + number)
    picture(tmp_path / "pets" / "outside.png")
    picture(tmp_path / "pets" / "dog" / "0.png", 20)
    (tmp_path / "pets" / "dog" / "notes.TXT").write_text("no picture")
    (tmp_path / "pets" / "dog" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pets" / "dog" / "round").symlink_to(tmp_path / "pets" / "dog")
    (tmp_path / "pets" / "bird").mkdir()
    shards_from_folder(tmp_path / "pets", tmp_path / "out")
    assert len([name for name in members(tmp_path / "out" / "00000.tar") if name.endswith("png")]) == 7
    reported, wrote = capsys.readouterr().out.splitlines()
    for part in (
        "1 hidden files or folders",
        "1 .txt files",
        "1 folders that are linked a second time",
        "1 pictures outside the folders of the classes",
        "0 pictures in the folder of class bird",
        "taken from folders that are links: 3 pictures",
    ):
        assert part in reported
    assert wrote.startswith("wrote 7 pictures")


def test_no_link_brings_pictures_of_another_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pets = tmp_path / "pets"
    for number, name in enumerate(("cat", "dog")):
        picture(pets / name / "0.png", number)
    picture(tmp_path / "store" / "bird" / "0.png", 2)
    (pets / "bird").symlink_to(tmp_path / "store" / "bird")
    for link, target in {
        "dog/loop": "..",
        "dog/cats": "../cat",
        "dog/birds": tmp_path / "store",
        "cat/above": tmp_path,
        "all": ".",
        "kitten": "cat",
        "itself": "itself",
    }.items():
        (pets / link).symlink_to(target)
    shards_from_folder(pets, tmp_path / "out", zero_shot=True)
    assert (tmp_path / "out" / "classnames.txt").read_text().split() == ["bird", "cat", "dog"]
    labels = [data for name, data in members(tmp_path / "out/test/0.tar").items() if name.endswith("cls")]
    assert sorted(labels) == [b"0", b"1", b"2"]
    reported = capsys.readouterr().out.splitlines()[0]
    assert "left out: 6 links to a folder above or to another class" in reported
    assert "taken from folders that are links: 1 pictures" in reported


def test_what_img2dataset_writes_as_files_is_no_folder_of_classes(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / "out" / "00000" / f"{number:09d}.jpg", number)
        (tmp_path / "out" / "00000" / f"{number:09d}.txt").write_text("a caption")
    with pytest.raises(UserMistake, match=r"captions beside 4 of 4 pictures.*tar -cf 00000\.tar -C .*/out/00000 \."):
        shards_from_folder(tmp_path / "out", tmp_path / "shards")


def test_a_caption_that_is_too_large_to_be_read_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards_from_csv(table(tmp_path, {1: "x" * 65_537, 2: "x" * 65_536}, 4), tmp_path / "out", max_bad_share=0.5)
    assert "wrote 3 pictures in 1 shards" in (said := capsys.readouterr().out)
    assert "skipped 1 (caption too large 1)" in said
    picture(tmp_path / "classes" / "cat" / "a.png")
    (tmp_path / "names.txt").write_text("x" * 65_536)
    with pytest.raises(
        UserMistake, match=r"the txt of sample '000000000' would have 65,\d+ bytes, and none above 65,536"
    ):
        shards_from_folder(tmp_path / "classes", tmp_path / "more", classnames=tmp_path / "names.txt")
    assert not files(tmp_path / "more")
