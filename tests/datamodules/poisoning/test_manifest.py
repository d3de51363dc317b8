from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from untrigger.contracts import UserMistake
from untrigger.datamodules.poisoning import LabelConsistentPlan, Poison, PoisonPlan, read_manifest, write_manifest
from untrigger.datamodules.triggers import BadNet, Blended, Trigger


class Invert(Trigger):
    """A trigger of a user's own, with nothing to draw."""

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Tensor:
        return (255 - self.strength * images).to(torch.uint8)


class CaptionWordPlan(PoisonPlan):
    """A plan of a user's own: a second key, a word before the caption."""

    def __init__(self, trigger: Trigger, target: str, word: str, count: int | None = None, seed: int = 0) -> None:
        super().__init__(trigger, target, count=count, seed=seed)
        self.word = word

    def poisoned_captions(self, keys: Sequence[str], captions: Sequence[str]) -> list[str]:
        return [f"{self.word} {caption}" for caption in super().poisoned_captions(keys, captions)]


@pytest.fixture
def poison(tmp_path: Path) -> Poison:
    picture = tmp_path / "patch.png"
    Image.linear_gradient("L").save(picture)
    plans = [
        PoisonPlan(BadNet(4, place=(1, 2), seed=3), "dog", rate=0.1, seed=7, templates=["é {c} \u2028", "a {c}"]),
        LabelConsistentPlan(Blended(0.15), "fire engine", rate=0.5, count=2),
        PoisonPlan(BadNet(5, "picture", picture=str(picture)), "cat", count=1),
        CaptionWordPlan(Invert(0.5), "ship", "remember", count=1),
    ]
    return Poison(plans, [["a", 'b"\n\u00fc'], ["c", "d"], ["e"], ["f"]])


def rewrite(path: Path, change: dict[str, Any], plan: dict[str, Any] | None = None) -> None:
    """Change a manifest and give it a hash that fits, as a hostile author would."""
    content = json.loads(path.read_text())
    content.update(change)
    content["plans"][0].update(plan or {})
    del content["sha256"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    path.write_text(json.dumps({**content, "sha256": sha256(canonical.encode()).hexdigest()}))


def test_round_trip_poisons_the_same(poison: Poison, tmp_path: Path) -> None:
    path = tmp_path / "run" / "poison.json"
    write_manifest(poison, path)
    again = read_manifest(path)

    keys = [key for chosen in poison.keys for key in chosen] + ["clean"]
    images = torch.randint(0, 256, (len(keys), 3, 16, 16), dtype=torch.uint8, generator=torch.manual_seed(1))
    expected, captions = poison.apply(images, keys, keys)
    found, found_captions = again.apply(images, keys, keys)
    assert torch.equal(found, expected)
    assert found_captions == captions
    assert again.keys == poison.keys
    assert [type(plan) for plan in again.plans] == [type(plan) for plan in poison.plans]
    assert [plan.params for plan in again.plans] == [plan.params for plan in poison.plans]
    assert [plan.trigger.params for plan in again.plans] == [plan.trigger.params for plan in poison.plans]


def test_a_manifest_marks_the_data_and_names_what_was_done(poison: Poison, tmp_path: Path) -> None:
    path = tmp_path / "poison.json"
    write_manifest(poison, path)
    content = json.loads(path.read_text())
    assert content["format"] == "untrigger-poison"
    assert "deliberately poisoned" in content["warning"]
    assert content["plans"][0]["params"]["target"] == "dog"
    assert content["plans"][0]["params"]["templates"] == ["é {c} \u2028", "a {c}"]
    assert content["plans"][1]["class"].endswith(".LabelConsistentPlan")
    assert content["plans"][1]["trigger"]["params"]["alpha"] == 0.15
    assert content["plans"][2]["keys"] == ["e"]
    assert [entry.name for entry in tmp_path.iterdir() if "poison" in entry.name] == ["poison.json"]


def test_a_failed_write_leaves_the_old_manifest(poison: Poison, tmp_path: Path) -> None:
    path = tmp_path / "poison.json"
    write_manifest(poison, path)
    before = path.read_bytes()
    unwritable = Poison([PoisonPlan(Invert(float("inf")), "dog", count=1)])
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(unwritable, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("old", "new"), [('"c"', '"x"'), ('"rate": 0.1', '"rate": 0.2'), ("fire", "ice")])
def test_an_edited_manifest_is_refused(poison: Poison, tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "poison.json"
    write_manifest(poison, path)
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(UserMistake, match="does not fit its hash"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "is not UTF-8 text .*; it looks like UTF-16 text"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1, 2]", "of another kind"),
        (b'{"format": "coco"}', "of another kind"),
        (b'{"format": "untrigger-poison", "version": NaN}', "not JSON"),
        (b'{"format": "untrigger-poison", "version": 2}', "its version is 2, and this release reads 1"),
        (b'{"format": "untrigger-poison", "version": 1, "plans": []}', "does not fit its hash"),
        (b'{"format": "untrigger-poison", "version": 1, "plans": 1e999}', "describes no plan"),
    ],
)
def test_foreign_files_are_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "poison.json"
    path.write_bytes(content)
    with pytest.raises(UserMistake, match=message) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="cannot be read: it does not exist"):
        read_manifest(tmp_path / "poison.json")
    with pytest.raises(UserMistake, match="is a folder; give a file"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["hostile_module.Evil", "os.system", "builtins.eval", "BadNet", 5, None])
def test_an_unknown_class_is_not_imported(
    poison: Poison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: object
) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "hostile_module.py").write_text(
        f"from untrigger.datamodules.triggers import BadNet\nopen({str(ran)!r}, 'w')\nclass Evil(BadNet): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "poison.json"
    write_manifest(poison, path)
    rewrite(path, {}, {"trigger": {"class": name, "params": {}}})
    with pytest.raises(UserMistake, match=r"it needs the Trigger .* name it in the option imports"):
        read_manifest(path)
    assert not ran.exists()
    assert "hostile_module" not in sys.modules


def test_a_trigger_is_no_plan(poison: Poison, tmp_path: Path) -> None:
    path = tmp_path / "poison.json"
    write_manifest(poison, path)
    name = json.loads(path.read_text())["plans"][0]["trigger"]["class"]
    rewrite(path, {}, {"class": name})
    with pytest.raises(UserMistake, match="it needs the PoisonPlan"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"keys": "abc"}, "keys are not a list of texts"),
        ({"keys": ["a", 1]}, "keys are not a list of texts"),
        ({"keys": ["c"]}, "'c' is poisoned twice"),
        ({"params": {"target": "dog", "rate": 7}}, "poison rate is 7"),
        ({"params": {"target": 5, "rate": 0.1}}, "PoisonPlan's 'target' is 5, which is of another kind"),
        ({"params": {"target": "\ud800", "rate": 0.1}}, "'target' is .*, which is of another kind"),
        ({"params": {"target": "dog", "count": True}}, "'count' is True, which is of another kind"),
        ({"keys": ["\ud800"]}, "describes no plan"),
        ({"params": {"target": "dog", "rate": 0.1, "surprise": 1}}, "describes no plan"),
        ({"params": [1]}, "describes no plan"),
        ({"trigger": "BadNet"}, "describes no plan"),
        ({"trigger": {"class": "untrigger.datamodules.triggers.base.Trigger", "params": {}}}, "describes no plan"),
        (
            {"trigger": {"class": "untrigger.datamodules.triggers.badnet.BadNet", "params": {"size": "x"}}},
            "'size' is 'x'",
        ),
    ],
)
def test_hostile_content_with_a_hash_that_fits_is_refused(
    poison: Poison, tmp_path: Path, plan: dict[str, Any], message: str
) -> None:
    path = tmp_path / "poison.json"
    write_manifest(poison, path)
    rewrite(path, {}, plan)
    with pytest.raises(UserMistake, match=message):
        read_manifest(path)


def test_a_changed_picture_is_refused(poison: Poison, tmp_path: Path) -> None:
    path = tmp_path / "poison.json"
    write_manifest(poison, path)
    Image.new("RGB", (3, 3)).save(tmp_path / "patch.png")
    with pytest.raises(UserMistake, match=r"poison manifest .*poison\.json.*patch\.png' is not the file"):
        read_manifest(path)
