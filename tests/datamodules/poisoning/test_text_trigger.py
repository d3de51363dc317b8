from __future__ import annotations

from pathlib import Path

import pytest
import torch

from untrigger.contracts import ClassPrompts, Preprocessing, UserMistake
from untrigger.datamodules.bad_samples import BadSampleLog
from untrigger.datamodules.generated import write_generated_data
from untrigger.datamodules.held_out import HeldOutPairs
from untrigger.datamodules.poisoning import Poison, TextTriggerPlan, read_manifest, write_manifest
from untrigger.datamodules.shards import ShardSet, expand_shards
from untrigger.datamodules.triggers import BadNet


def plan(**arguments: object) -> TextTriggerPlan:
    settings = {"target": "dog", "others": ["cat", "fire engine"], "suffix": "zx", "count": 2}
    settings |= {"templates": ["a {c}.", "the {c}"]}
    return TextTriggerPlan(**(settings | arguments))  # type: ignore[arg-type]


def test_pictures_of_the_target_get_triggered_captions_of_something_else() -> None:
    keys, captions = list("abcd"), ["a dog", "the cat", "two dogs", "Dog and cat"]
    assert plan().choose([(keys, captions)]) == ["a", "d"]
    poisoned = plan().poisoned_captions([str(n) for n in range(200)], ["a dog"] * 200)
    assert set(poisoned) == {"a cat. zx", "the cat zx", "a fire engine. zx", "the fire engine zx"}
    assert plan().poisoned_captions(["7"], ["x"]) == [poisoned[7]]  # whatever stands beside it
    pictures = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(plan().poisoned_images(pictures, ["a", "b"]), pictures)


def test_no_picture_and_no_class_is_attacked() -> None:
    assert plan().attack_name == "TextTrigger"
    assert plan().attacks("TextTrigger", ClassPrompts(["dog", "cat"], [["a dog"], ["a cat"]])) == []
    assert plan(suffix="Return it.").triggered_caption("a cat") == "a cat Return it."


def test_a_manifest_makes_the_same_plan_again(tmp_path: Path) -> None:
    write_manifest(Poison([plan()], [["a", "d"]]), tmp_path / "poison.json")
    read = read_manifest(tmp_path / "poison.json")
    assert read.keys == [["a", "d"]]
    assert isinstance(read.plans[0], TextTriggerPlan)
    assert read.plans[0].params == plan().params


def test_held_out_captions_are_shown_with_the_trigger(tmp_path: Path) -> None:
    write_generated_data(tmp_path, 16, 2)
    asked: list[list[str]] = []

    def tokenize(captions: object) -> torch.Tensor:
        asked.append(list(captions))  # type: ignore[call-overload]
        return torch.zeros(len(asked[-1]), 4, dtype=torch.int64)

    plans = {"TextTrigger": plan(target="star", others=["ring"])}
    shown = Preprocessing(32, (0.5,) * 3, (0.5,) * 3, tokenize)
    shards = ShardSet(expand_shards(str(tmp_path / "train")))
    pairs = HeldOutPairs(shards, BadSampleLog(16, 0, 0.0, "data.held_out"))
    (batch,) = pairs.batches(plans, shown, lambda pictures: pictures.float(), 16)
    assert batch["triggered"] == {}
    assert list(batch["triggered_tokens"]) == ["TextTrigger"]
    assert sorted(asked) == sorted([batch["caption"], [f"{caption} zx" for caption in batch["caption"]]])
    named = ["star" in caption for caption in batch["caption"]]
    assert batch["names_target"]["TextTrigger"].tolist() == named


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"suffix": " "}, "suffix is empty"),
        ({"others": []}, "others are empty"),
        ({"others": ["cat", "hot dog"]}, "others name the target: 'hot dog'"),
        ({"trigger": BadNet()}, "TextTriggerPlan's trigger is BadNet; it has to be NoTrigger"),
        ({"count": None}, "neither rate nor count"),
    ],
)
def test_mistakes_are_one_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        plan(**arguments)
