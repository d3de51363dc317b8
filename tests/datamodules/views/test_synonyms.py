from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from untrigger.contracts import UserMistake
from untrigger.datamodules.views import EDA, synonyms
from untrigger.datamodules.views.synonyms import BUILTIN, STOP_WORDS, thesaurus


def groups() -> list[list[str]]:
    lines = BUILTIN.read_text(encoding="utf-8").splitlines()
    return [line.split(", ") for line in lines if line and not line.startswith("#")]


def test_a_word_has_the_others_of_all_its_groups(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text(
        "# comment, of words\n\nPhoto,  picture , image # a comment\nphoto, shot\nfire   truck, fire engine\nalone\n",
        encoding="utf-8",
    )
    look_up = thesaurus(str(path))
    assert look_up("photo") == ("image", "picture", "shot")
    assert look_up("shot") == ("photo",)
    assert look_up("fire truck") == ("fire engine",)
    assert look_up("alone") == look_up("comment") == look_up("") == ()


@pytest.mark.parametrize("content", [None, b"photo, \xff\xfe"], ids=["missing", "binary"])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "nothing.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserMistake, match=r"cannot read synonyms from '.*nothing.txt' .*: give builtin, wordnet, or"):
        thesaurus(str(path))


def test_the_builtin_table_holds_no_stop_words_and_no_lone_words() -> None:
    for group in groups():
        assert len(set(group)) == len(group) > 1, group
        assert not STOP_WORDS & set(group), group
        assert all(word == word.lower().strip() for word in group), group
    assert len({word for group in groups() for word in group}) > 1000


def test_the_builtin_table_is_symmetric() -> None:
    look_up = thesaurus("builtin")
    for group in groups():
        for word in group:
            assert set(group) - {word} <= set(look_up(word))
            assert all(word in look_up(synonym) for synonym in look_up(word))


def test_the_builtin_table_knows_the_words_of_clips_cifar_10_captions() -> None:
    look_up = thesaurus("builtin")
    prompts = "photo blurry low high bad good small big"
    classes = "airplane automobile bird cat deer dog frog horse ship truck"
    assert [word for word in f"{prompts} {classes}".split() if not look_up(word)] == []


@pytest.fixture
def no_readers_left() -> Iterator[None]:
    """What one test has read of a WordNet is not there for the next."""
    yield
    synonyms._from_wordnet.cache_clear()
    if synonyms._wordnet.cache_info().currsize:
        # NLTK leaves its files to the garbage collector, which warns.
        for file in synonyms._wordnet(os.getpid())._data_file_map.values():
            file.close()
    synonyms._wordnet.cache_clear()


@pytest.fixture
def wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_readers_left: None) -> None:
    """A WordNet of two nouns' and one verb's synsets, in the files of WordNet's own format, where NLTK looks."""
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    noun = ""
    offsets = []
    for line in (
        "06 n 02 photo 0 digital_photo 0 000 | a picture",
        "06 n 03 photo 1 Mug-Shot 0 exposure 0 000 | a portrait",
    ):
        offsets.append(len(noun))
        noun += f"{len(noun):08d} {line}  \n"
    files = dict.fromkeys(("index.sense", "cntlist.rev"), "")
    for part in ("noun", "verb", "adj", "adv"):
        files |= {f"index.{part}": "", f"data.{part}": "", f"{part}.exc": ""}
    files["lexnames"] = "".join(f"{index:02d}\tname{index}\t1\n" for index in range(45))
    files["data.noun"] = noun
    files["index.noun"] = f"photo n 2 0 2 0 {offsets[0]:08d} {offsets[1]:08d}  \n"
    files["noun.exc"] = "fotos photo\n"
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])


@pytest.mark.usefixtures("wordnet")
def test_wordnet_gives_the_lemmas_of_all_synsets() -> None:
    look_up = thesaurus("wordnet")
    assert look_up("photo") == ("digital photo", "exposure", "mug shot")
    assert look_up("frog") == ()
    assert look_up("x" * 100_000) == ()


@pytest.mark.usefixtures("wordnet")
def test_eda_replaces_by_wordnet() -> None:
    eda = EDA(1.0, 0.0, 0.0, 0.0, synonyms="wordnet")
    expected = {"a Digital photo.", "a Exposure.", "a Mug shot."}
    assert set(eda(["a Photo."] * 50, range(50))) == expected


def test_a_wordnet_that_is_not_on_disk_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    with pytest.raises(UserMistake, match="needs NLTK's WordNet corpus on disk"):
        EDA(synonyms="wordnet")
    assert list(tmp_path.iterdir()) == []


def test_wordnet_without_nltk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(UserMistake, match="needs the package nltk"):
        EDA(synonyms="wordnet")
