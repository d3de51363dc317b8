from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from untrigger.contracts import Attack, GroundTruth, ImageTextData, Preprocessing, UserMistake, ZeroShotData
from untrigger.datamodules import (
    EDA,
    BadNet,
    Blended,
    ImageTextDataModule,
    PoisonPlan,
    RandomHorizontalFlip,
    TextView,
    TransformView,
    stream,
)
from untrigger.datamodules.pairs import TrainingPairs
from untrigger.datamodules.poisoning import Poison, write_manifest
from untrigger.datamodules.shards import ShardSet
from untrigger.lightning_modules.encoders.small import SmallTokenizer

WritePairs = Callable[..., list[str]]


@pytest.fixture
def zero_shot(tmp_path: Path, write_shard: Callable[..., str]) -> str:
    folder = tmp_path / "colours"
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("red\ngreen\nblue\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a {c} thing\nsome {c}\n")
    (folder / "test" / "nshards.txt").write_text("2")
    from PIL import Image  # only here

    number = 0
    for shard in range(2):
        samples = []
        for _ in range(7):
            pixels = np.zeros((32, 32, 3), dtype=np.uint8)
            pixels[..., number % 3] = 200
            path = tmp_path / "one.png"
            Image.fromarray(pixels).save(path)
            samples.append((f"s{number:04d}", {"png": path.read_bytes(), "cls": str(number % 3).encode()}))
            number += 1
        write_shard(folder / "test" / f"{shard}.tar", samples)
    return str(folder)


def plan(**arguments: Any) -> PoisonPlan:
    return PoisonPlan(arguments.pop("trigger", BadNet(size=4)), "green", **({"count": 5} | arguments))


def ready(preprocessing: Preprocessing, stage: str = "fit", **arguments: Any) -> ImageTextDataModule:
    data = ImageTextDataModule(**({"num_workers": 0, "batch_size": 4} | arguments))
    data.preprocessing = preprocessing
    data.setup(stage)
    return data


def by_key(data: ImageTextDataModule) -> dict[str, tuple[Tensor, list[int]]]:
    found = {}
    for batch in data.train_dataloader():
        batch = data.on_after_batch_transfer(batch, 0)
        for key, image, tokens in zip(batch["key"], batch["image"], batch["tokens"].tolist(), strict=True):
            found[key] = (image, tokens)
    return found


def test_it_keeps_the_contracts(write_pairs: WritePairs, zero_shot: str, preprocessing: Preprocessing) -> None:
    data = ready(preprocessing, train_shards=write_pairs([8]), zero_shot=zero_shot, poison=plan())
    assert isinstance(data, ZeroShotData)
    assert isinstance(data, ImageTextData)
    assert data.dataset_name == "colours"
    assert data.attacks == [Attack("BadNet", 1)]
    assert data.class_prompts.classnames == ["red", "green", "blue"]
    assert data.class_prompts.prompts[2] == ["a blue thing", "some blue"]


def test_a_batch_is_normalised_and_never_tells_who_is_poisoned(
    write_pairs: WritePairs, preprocessing: Preprocessing
) -> None:
    data = ready(preprocessing, train_shards=write_pairs([8]), poison=plan(rate=1.0, count=None))
    raw = next(iter(data.train_dataloader()))
    pictures = raw["image"].clone()
    batch = data.on_after_batch_transfer(raw, 0)
    assert set(batch) == {"key", "image", "tokens"}
    mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
    torch.testing.assert_close(batch["image"], (pictures.float() / 255 - mean) / std)


def test_poison_is_exact_and_leaves_the_others_alone(write_pairs: WritePairs, preprocessing: Preprocessing) -> None:
    paths = write_pairs([10, 14])
    clean = by_key(ready(preprocessing, train_shards=paths))
    data = ready(preprocessing, train_shards=paths, poison=plan(seed=3))
    poisoned = by_key(data)
    changed = {key for key in clean if not torch.equal(clean[key][0], poisoned[key][0])}
    recaptioned = {key for key in clean if clean[key][1] != poisoned[key][1]}
    chosen = set(Poison.from_plans([plan(seed=3)], ShardSet(paths)).keys[0])
    assert changed == recaptioned == chosen
    assert len(chosen) == 5
    other_order = ready(preprocessing, train_shards=paths[::-1], poison=plan(seed=3), num_workers=2, seed=9)
    again = by_key(other_order)
    assert all(torch.equal(again[key][0], poisoned[key][0]) and again[key][1] == poisoned[key][1] for key in poisoned)


def test_a_manifest_gives_the_same_stream_as_its_plan(
    write_pairs: WritePairs, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    paths = write_pairs([10, 14])
    write_manifest(Poison.from_plans([plan()], ShardSet(paths)), tmp_path / "poison.json")
    first = by_key(ready(preprocessing, train_shards=paths, poison=plan()))
    second = by_key(ready(preprocessing, train_shards=paths, poison=str(tmp_path / "poison.json")))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key][0], second[key][0]) and first[key][1] == second[key][1] for key in first)


def test_evaluation_shows_each_picture_once_clean_and_under_each_attack(
    zero_shot: str, preprocessing: Preprocessing
) -> None:
    attacks = [plan(), plan(trigger=Blended(alpha=0.5)), plan(trigger=BadNet(size=8))]
    data = ready(preprocessing, "validate", zero_shot=zero_shot, attack=attacks, eval_batch_size=5)
    assert [attack.name for attack in data.attacks] == ["BadNet", "Blended", "BadNet-2"]
    loader = data.val_dataloader()
    batches = list(loader)
    assert [len(batch["key"]) for batch in batches] == [5, 5, 4]
    labels = torch.cat([batch["label"] for batch in batches])
    assert labels.tolist() == [number % 3 for number in range(14)]
    for batch in batches:
        assert torch.equal(batch["image"][:, :, 0, 0].argmax(dim=1), batch["label"])
        for name, attack in zip(("BadNet", "Blended", "BadNet-2"), attacks, strict=True):
            assert torch.equal(batch["triggered"][name], attack.trigger(batch["image"], batch["key"]))


def test_the_attack_is_the_poison_unless_given(
    write_pairs: WritePairs, zero_shot: str, preprocessing: Preprocessing
) -> None:
    paths = write_pairs([8])
    both = ready(preprocessing, train_shards=paths, zero_shot=zero_shot, poison=plan())
    other = ready(preprocessing, train_shards=paths, zero_shot=zero_shot, poison=plan(), attack=plan(trigger=Blended()))
    neither = ready(preprocessing, train_shards=paths, zero_shot=zero_shot)
    assert [[attack.name for attack in data.attacks] for data in (both, other, neither)] == [
        ["BadNet"],
        ["Blended"],
        [],
    ]


def test_select_restricts_the_next_loader_and_none_lifts_it(
    write_pairs: WritePairs, preprocessing: Preprocessing
) -> None:
    data = ready(preprocessing, train_shards=write_pairs([10, 14]))
    wanted = {f"k{number:04d}" for number in range(6, 14)}
    data.select(wanted)
    assert set(by_key(data)) == wanted
    data.select(None)
    assert len(by_key(data)) == 24
    assert data._pairs.shards.select(wanted).incomplete == 0
    data.select(())
    assert list(data.predict_dataloader()) == []


def test_in_order_each_selected_pair_comes_once_as_it_is_in_the_shards(
    write_pairs: WritePairs, preprocessing: Preprocessing
) -> None:
    data = ready(
        preprocessing,
        train_shards=write_pairs([10, 14]),
        poison=plan(count=24),
        eval_batch_size=9,
        augmentation=RandomHorizontalFlip(1.0),
        text_view=Shout(),
    )
    data.select(None, in_order=True)
    batches = list(data.train_dataloader())
    keys = [key for batch in batches for key in batch["key"]]
    assert keys == [f"k{number:04d}" for number in range(24)]
    assert [len(batch["key"]) for batch in batches] == [9, 9, 6]
    assert all(set(batch) == {"key", "image", "tokens"} for batch in batches)
    assert torch.equal(torch.cat([batch["image"] for batch in batches]), data.pictures(keys))
    wanted = ["k0003", "k0012"]
    data.select(wanted, in_order=True)
    assert [batch["key"] for batch in data.train_dataloader()] == [wanted]
    data.select(None)
    assert len(next(iter(data.train_dataloader()))["key"]) == 4


def test_the_size_of_the_data_and_the_truth_are_reported(
    write_pairs: WritePairs, preprocessing: Preprocessing, zero_shot: str, tmp_path: Path
) -> None:
    paths = write_pairs([10, 14])
    poison = Poison.from_plans([plan()], ShardSet(paths))
    write_manifest(poison, tmp_path / "poison.json")
    data = ready(preprocessing, train_shards=paths, poison=str(tmp_path / "poison.json"))
    assert isinstance(data, GroundTruth)
    assert (data.pairs, data.global_batch_size) == (24, 4)
    truth = frozenset(poison.keys[0])
    assert data.poisoned_keys == truth
    measured = {"zero_shot": zero_shot, "attack": str(tmp_path / "poison.json")}
    assert ready(preprocessing, train_shards=paths, **measured).poisoned_keys == truth
    half = ready(preprocessing, train_shards=paths[:1], **measured).poisoned_keys
    assert half == {key for key in truth if key < "k0010"}
    assert ready(preprocessing, train_shards=paths).poisoned_keys == frozenset()


def test_a_rate_that_takes_no_pair_is_told(write_pairs: WritePairs, caplog: pytest.LogCaptureFixture) -> None:
    shards = ShardSet(write_pairs([10]))
    with caplog.at_level(logging.INFO):
        TrainingPairs(shards, Poison.from_plans([plan(rate=1e-6, count=None)], shards)).report_poison()
    assert "Poisoned: 0 with BadNet, target 'green': a rate of 1e-06 takes none of so few pairs" in caplog.text


def test_pictures_and_captions_by_key_are_those_of_the_stream(
    write_pairs: WritePairs, preprocessing: Preprocessing
) -> None:
    data = ready(preprocessing, train_shards=write_pairs([10, 14]), poison=plan(count=24, templates=["a {c}!"]))
    stream = {
        key: image for batch in data.train_dataloader() for key, image in zip(batch["key"], batch["image"], strict=True)
    }
    keys = ["k0013", "k0002"]
    assert torch.equal(data.pictures(keys), torch.stack([stream[key] for key in keys]))
    assert data.captions(keys) == ["a green!", "a green!"]
    with pytest.raises(UserMistake, match="have no sample 'nobody'"):
        data.pictures(["nobody"])


class Shout(TextView):
    """Says which seed it was given."""

    def __call__(self, captions: Any, seeds: Any) -> list[str]:
        return [f"{seed % 10**20:020d}" for seed in seeds]


def test_views_are_afresh_each_epoch_and_a_function_of_seed_and_key(
    write_pairs: WritePairs, preprocessing: Preprocessing
) -> None:
    paths = write_pairs([12])

    def views(epoch: int, **arguments: Any) -> dict[str, list[int]]:
        data = ready(preprocessing, train_shards=paths, text_view=Shout(), **arguments)
        data._epoch = lambda: epoch  # type: ignore[method-assign]
        loader = data.train_dataloader()
        return {
            key: tokens
            for batch in loader
            for key, tokens in zip(batch["key"], batch["tokens_view"].tolist(), strict=True)
        }

    first = views(0)
    assert len({tuple(tokens) for tokens in first.values()}) == 12
    assert views(0, num_workers=2, batch_size=3) == first
    second = views(1)
    assert all(second[key] != first[key] for key in first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_shards": None}, "fit needs data.train_shards"),
        ({"zero_shot": "nowhere"}, "zero-shot folder nowhere does not exist"),
        ({"batch_size": 100}, "24 training pairs do not fill one batch of 100"),
        ({"poison": plan(trigger=BadNet(size=40))}, "trigger size 40 is larger than the 32 x 32 input"),
        ({"poison": plan(count=25)}, "25"),
        ({"poison": PoisonPlan(BadNet(), "purple", count=2)}, "target 'purple' is not among"),
        ({"poison": "missing/poison.json"}, r"missing/poison\.json"),
    ],
)
def test_mistakes_are_told_at_set_up(
    arguments: dict[str, Any], message: str, write_pairs: WritePairs, zero_shot: str, preprocessing: Preprocessing
) -> None:
    given = {"train_shards": write_pairs([24]), "zero_shot": zero_shot} | arguments
    with pytest.raises(UserMistake, match=message) as error:
        ready(preprocessing, **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("classnames.txt", None, r"class names .*classnames\.txt cannot be read"),
        ("zeroshot_classification_templates.txt", None, "zero-shot set without"),
        ("zeroshot_classification_templates.txt", "a photo", r"has no \{c\}"),
        ("classnames.txt", "red\n \nblue", r"classnames\.txt: line 2 of 3 is blank"),
        ("test/nshards.txt", "many", "not a number"),
        ("test/nshards.txt", "3", r"2\.tar does not exist"),
        ("test/nshards.txt", "999999", r"2\.tar does not exist, and nshards.txt says 999,999"),
    ],
)
def test_a_broken_zero_shot_set_is_reported(
    file: str, content: str | None, message: str, zero_shot: str, preprocessing: Preprocessing
) -> None:
    path = Path(zero_shot, file)
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserMistake, match=message):
        ready(preprocessing, "validate", zero_shot=zero_shot)


def test_labels_of_other_classes_are_told_at_set_up(zero_shot: str, preprocessing: Preprocessing) -> None:
    Path(zero_shot, "classnames.txt").write_text("red\ngreen\n")
    message = r"zero-shot set: 4 of 14 samples are bad, .*max_bad_share=0\.2 .*'2' is not a class index below 2"
    with pytest.raises(UserMistake, match=message):
        ready(preprocessing, "validate", zero_shot=zero_shot, max_bad_share=0.2)
    data = ready(preprocessing, "validate", zero_shot=zero_shot, max_bad_share=0.3)
    assert sum(len(batch["key"]) for batch in data.val_dataloader()) == 10


def test_a_manifest_names_its_keys(write_pairs: WritePairs, tmp_path: Path) -> None:
    poison = Poison.from_plans([plan()], ShardSet(write_pairs([10])))
    write_manifest(poison, tmp_path / "poison.json")
    assert sorted(json.loads((tmp_path / "poison.json").read_text())["plans"][0]["keys"]) == sorted(poison.keys[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_however_many_are_made_at_once(
    write_pairs: WritePairs, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    arguments: dict[str, Any] = {
        "train_shards": write_pairs([20, 17, 9]),
        "poison": plan(),
        "augmentation": RandomHorizontalFlip(),
        "image_view": TransformView(),
        "text_view": EDA(),
        "num_workers": workers,
        "batch_size": 4,
    }
    preprocessing = preprocessing._replace(tokenize=SmallTokenizer(32))  # cuts to the longest caption that it is given
    at_once: list[int] = []
    assemble = stream.ImageTextStream.assemble

    def counted(self: stream.ImageTextStream, samples: list[stream.Sample], epoch: int) -> dict[str, Any]:
        at_once.append(len(samples))
        return assemble(self, samples, epoch)

    monkeypatch.setattr(stream.ImageTextStream, "assemble", counted)
    many = list(ready(preprocessing, **arguments).train_dataloader())
    monkeypatch.setattr(stream, "_TOGETHER", 0)
    single = list(ready(preprocessing, **arguments).train_dataloader())
    assert workers or at_once == [44] + [4] * 11
    for one, other in zip(many, single, strict=True):
        assert one["key"] == other["key"]
        assert one.keys() == other.keys() == {"key", "image", "tokens", "image_view", "tokens_view"}
        assert all(torch.equal(one[name], other[name]) for name in one.keys() - {"key"})
