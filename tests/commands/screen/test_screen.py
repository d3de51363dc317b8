"""Pictures of unknown origin on a model with a backdoor, as a user screens them."""

from __future__ import annotations

import csv
import gc
import io
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from planted import COLOURS, Planted, plan, plant

from untrigger import cli
from untrigger.contracts import UserMistake
from untrigger.datamodules.shards.samples import decode_picture
from untrigger.datamodules.zero_shot import ZeroShotSet

COLUMNS = ["key", "class"]
COLUMNS += [f"{detector}_{what}" for detector in ("bdetclip", "subspace", "backdoor_ids") for what in ("score", "p")]
COLUMNS += ["p", "flagged"]


class Scene(NamedTuple):
    """A model, and folders of pictures."""

    planted: Planted
    clean: str
    others: str
    triggered: str
    classes: str


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """60 clean pictures, 60 others, and 40 with the trigger."""
    root = tmp_path_factory.mktemp("scene")
    planted = plant(root, plan())
    shards = ZeroShotSet(str(planted.folder)).shards
    squares = [decode_picture(shards.read(0, position, "picture"), 32) for position in range(160)]
    pictures = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
    pictures[120:] = plan().trigger(pictures[120:], [str(number) for number in range(40)])
    for name, first, last in (("clean", 0, 60), ("others", 60, 120), ("triggered", 120, 160)):
        (root / name / "below").mkdir(parents=True)
        for number in range(first, last):
            path = root / name / ("below" if number % 2 else "") / f"{number:03}.png"
            Image.fromarray(pictures[number].permute(1, 2, 0).numpy()).save(path)
    (root / "classes.txt").write_text("\n".join(COLOURS))
    folders = (str(root / name) for name in ("clean", "others", "triggered"))
    return Scene(planted, *folders, str(root / "classes.txt"))


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


@contextmanager
def undone_imports(name: str) -> Iterator[None]:
    """Forget a module, and the classes that it has brought along."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.modules.pop(name, None)
        sys.path[:] = before
        gc.collect()  # a class refers to itself


def screened(scene: Scene, pictures: str, *words: str) -> list[dict[str, str]]:
    """The rows of a table."""
    assert cli.run(["screen", str(scene.planted.model), pictures, *words]) == 0
    with Path("screen.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_clean_pictures_are_flagged_no_more_often_than_was_asked_for(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = screened(scene, scene.others, "--classes", scene.classes, "--clean", scene.clean, "--rate", "0.1")
    assert list(rows[0]) == COLUMNS
    assert {row["key"] for row in rows} == {f"{'below/' if n % 2 else ''}{n:03}.png" for n in range(60, 120)}
    assert {row["class"] for row in rows} <= set(COLOURS)
    p = [float(row["p"]) for row in rows]
    assert p == sorted(p)
    assert [row["flagged"] for row in rows] == ["yes" if value <= 0.1 else "no" for value in p]
    assert sum(value <= 0.1 for value in p) <= 12  # of sixty, six on average
    assert "were all of them clean, it would be 6.0 at most" in capsys.readouterr().out


def test_p_values_are_those_against_the_clean_pictures_and_of_all_detectors_together(scene: Scene) -> None:
    words = ("--classes", scene.classes, "--rate", "0.1")
    known = screened(scene, scene.clean, *words)
    rows = screened(scene, scene.triggered, "--clean", scene.clean, *words)
    assert sum(row["class"] == "tomato" for row in rows) > 25  # the trigger works
    for detector in ("bdetclip", "subspace", "backdoor_ids"):
        reference = np.array([float(row[f"{detector}_score"]) for row in known])
        for row in rows:
            at_least = (reference >= float(row[f"{detector}_score"])).sum()
            assert float(row[f"{detector}_p"]) == pytest.approx((1 + at_least) / 61, abs=0.02)  # of rounded scores
    for row in rows:
        each = [float(row[f"{detector}_p"]) for detector in ("bdetclip", "subspace", "backdoor_ids")]
        assert float(row["p"]) == pytest.approx(min(3 * min(each), 1), rel=1e-4)


def test_without_clean_pictures_the_most_suspicious_share_is_flagged(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = screened(scene, scene.others, "--classes", scene.classes, "--rate", "0.1")
    assert sum(row["flagged"] == "yes" for row in rows) <= 6
    assert "nothing says whether any picture is triggered" in capsys.readouterr().out


def test_without_classes_there_is_one_detector_alone(scene: Scene) -> None:
    rows = screened(scene, scene.others, "--rate", "0.05")
    assert list(rows[0]) == ["key", "class", "backdoor_ids_score", "backdoor_ids_p", "p", "flagged"]
    assert {row["class"] for row in rows} == {""}
    with pytest.raises(UserMistake, match="detector subspace compares classes: name them with --classes"):
        screened(scene, scene.others, "--detectors", "[subspace]")


OWN = """
from untrigger.lightning_modules.screening import PictureDetector


class Brightness(PictureDetector):
    name = "brightness"
    fewest_classes = 0

    def score(self, pictures, features):
        return pictures.mean(dim=(1, 2, 3)){rest}
"""


def test_a_detector_of_ones_own_is_asked_beside_the_others(scene: Scene) -> None:
    Path("my_brightness.py").write_text(OWN.replace("{rest}", ""))
    with undone_imports("my_brightness"):
        rows = screened(scene, scene.others, "--rate", "0.05", "--imports", "my_brightness")
        assert [name for name in rows[0] if name.endswith("_score")] == ["backdoor_ids_score", "brightness_score"]
        rows = screened(
            scene, scene.others, "--rate", "0.05", "--imports", "my_brightness", "--detectors", "[brightness]"
        )
        assert [float(row["p"]) for row in rows] == sorted(float(row["p"]) for row in rows)
        with pytest.raises(UserMistake, match=r"no detector 'brightnes': bdetclip, .*; did you mean brightness\?"):
            screened(scene, scene.others, "--imports", "my_brightness", "--detectors", "[brightnes]")


def test_a_detector_that_does_not_score_each_picture_is_refused(scene: Scene) -> None:
    Path("my_mean.py").write_text(OWN.replace("{rest}", ".mean()"))
    with (
        undone_imports("my_mean"),
        pytest.raises(UserMistake, match=r"detector brightness returned \(\) for 60 pictures, not \(60,\)"),
    ):
        screened(scene, scene.others, "--rate", "0.05", "--imports", "my_mean")


def test_shards_and_zero_shot_sets_are_pictures_too(scene: Scene) -> None:
    folder = scene.planted.folder
    rows = screened(scene, str(folder), "--detectors", "[bdetclip]")
    assert len(rows) == 160
    assert {row["class"] for row in rows} <= set(COLOURS)  # a zero-shot set names its classes
    assert len(screened(scene, str(folder / "train"), "--detectors", "[backdoor_ids]")) == 640
    assert len(screened(scene, str(folder / "test" / "0.tar"), "--detectors", "[backdoor_ids]")) == 160


def test_pictures_beside_shards_are_refused_and_hidden_files_do_not_count(scene: Scene) -> None:
    shutil.copytree(scene.planted.folder / "train", "mixed")
    for name in ("one.png", "TWO.JPG", "notes.txt", ".three.png"):
        Path("mixed", name).write_bytes(b"no picture")
    with pytest.raises(UserMistake, match=r"mixed has shards \(\.tar\) and 2 pictures beside them: put either"):
        screened(scene, "mixed")
    shutil.copytree(scene.others, "pictures")
    Path("pictures/.hidden.tar").write_bytes(b"no shard")
    assert len(screened(scene, "pictures", "--rate", "0.05", "--detectors", "[backdoor_ids]")) == 60


def test_every_picture_of_a_shard_is_judged_with_or_without_a_text(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [path.read_bytes() for path in sorted(Path(scene.others).rglob("*.png"))[:12]]
    with tarfile.open("some.tar", "w") as shard:
        for number, content in enumerate(pictures):
            for name, data in ((f"{number}.png", content), (f"{number}.txt", b"a caption"))[: 1 + (number < 4)]:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
        for name in ("0.mask.png", "lone.txt"):
            shard.addfile(tarfile.TarInfo(name))
    assert len(screened(scene, "some.tar", "--rate", "0.5", "--detectors", "[backdoor_ids]")) == 12
    assert "some.tar: left out: 1 samples without a picture, or cut off (found: " in capsys.readouterr().out


def test_a_key_that_is_no_utf_8_stands_in_the_table_byte_for_byte(scene: Scene) -> None:
    Path("some").mkdir()
    for number, path in enumerate(sorted(Path(scene.others).rglob("*.png"))[:6]):
        shutil.copy(path, os.fsdecode(b"some/\xe9%d.png" % number))
    cli.run(["screen", str(scene.planted.model), "some", "--rate", "0.5", "--detectors", "[backdoor_ids]"])
    assert Path("screen.csv").read_bytes().count(b"\n\xe9") == 6


def test_what_cannot_be_read_is_reported_and_stands_at_the_end(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(scene.others, "some")
    Path("some/060.png").write_bytes(b"no picture")
    Path("some/.hidden.png").write_bytes(b"")
    rows = screened(scene, "some", "--rate", "0.05")
    assert len(rows) == 60
    assert [row["flagged"] for row in rows].count("unreadable") == 1
    assert {name: value for name, value in rows[-1].items() if value} == {"key": "060.png", "flagged": "unreadable"}
    assert "1 pictures cannot be read and are not scored; the first: 060.png, broken picture" in capsys.readouterr().out
    Path("none").mkdir()
    for name in ("one.png", "other.jpg"):
        Path("none", name).write_bytes(b"no picture")
    with pytest.raises(UserMistake, match=r"none of the 2 pictures can be read; the first: one\.png, broken picture"):
        screened(scene, "none", "--rate", "0.9", "--detectors", "[backdoor_ids]")


def test_what_is_passed_over_in_a_folder_is_told_and_links_are_followed(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(scene.others, "some")
    shutil.copytree(scene.clean, "elsewhere")
    for name in ("a.bmp", "b.BMP", "notes.txt", ".hidden.png"):
        Path("some", name).write_bytes(b"")
    Path("some/more").symlink_to(Path("elsewhere").absolute())
    Path("some/below/loop").symlink_to("..")
    Path("some/below/above").symlink_to(Path.cwd())
    rows = screened(scene, "some", "--rate", "0.05")
    assert len(rows) == 120
    assert {row["key"] for row in rows} >= {"more/000.png", "more/below/001.png", "below/061.png"}
    (told,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("some: left out: ")]
    for part in ("2 .bmp files", "1 .txt files", "1 hidden files or folders", "1 links to a folder above"):
        assert part in told
    assert told.endswith("taken from folders that are links: 60 pictures")
    Path("bitmaps").mkdir()
    Path("bitmaps/a.bmp").write_bytes(b"")
    with pytest.raises(UserMistake, match=r"bitmaps has no picture .*; left out: 1 \.bmp files"):
        screened(scene, "bitmaps")


def test_mistakes_are_one_line(scene: Scene) -> None:
    Path("empty").mkdir()
    Path("results.csv").write_text("dataset,attack\n")
    for words, message in (
        ((scene.others, "--rate", "0"), "--rate is 0.0, not above 0 and below 1"),
        ((scene.others, "--batch_size", "0"), "--batch_size is 0, not at least 1"),
        (("empty",), "empty has no picture"),
        ((scene.others, "--clean", scene.others), r"--clean has .*, which is among the pictures too"),
        (("absent",), "folder absent does not exist"),
        (("absent.tar",), "shard absent.tar does not exist"),
        ((scene.others, "--out", "empty"), "empty is a folder"),
        ((scene.others, "--out", "results.csv"), r"results\.csv is there already and is no table of untrigger screen"),
        ((scene.others, "--out", str(scene.planted.model)), "is there already and is no table of untrigger screen"),
        ((scene.others, "--out", f"{scene.others}/060.png"), "is there already and is no table of untrigger screen"),
        ((scene.others, "--rate", "0.01"), "takes at least 100 pictures, and there are 60"),
        (
            (scene.others, "--clean", scene.clean, "--classes", scene.classes, "--rate", "0.02"),
            "a rate of 0.02 with 3 detectors takes at least 149 clean pictures, and there are 60",
        ),
    ):
        with pytest.raises(UserMistake, match=message):
            screened(scene, *words)
    assert not Path("screen.csv").exists()
