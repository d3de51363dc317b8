"""Pairs with several captions, one a line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import coloured_pair

from untrigger.commands.poison.command import poison
from untrigger.contracts import Preprocessing
from untrigger.datamodules import ImageTextDataModule
from untrigger.datamodules.poisoning import LabelConsistentPlan, PoisonPlan
from untrigger.datamodules.several_captions import report_several_captions
from untrigger.datamodules.shards import ShardSet
from untrigger.datamodules.shards.samples import caption_lines
from untrigger.datamodules.triggers import BadNet

WriteShard = Callable[[Path, Sequence[tuple[str, dict[str, bytes]]]], str]
TEXTS = [f"cat {n}\na dog {n}\r\n\nship {n}\nfrog {n}\nbird {n}\n" for n in range(12)]


@pytest.fixture
def shard(tmp_path: Path, write_shard: WriteShard) -> str:
    pairs = [(f"k{n:02d}", {**coloured_pair(n), "txt": text.encode()}) for n, text in enumerate(TEXTS)]
    return write_shard(tmp_path / "train" / "0.tar", pairs)


def ready(preprocessing: Preprocessing, shard: str, **arguments: Any) -> ImageTextDataModule:
    data = ImageTextDataModule(shard, batch_size=4, num_workers=0, **arguments)
    data.preprocessing = preprocessing
    data.setup("fit")
    return data


def shown(data: ImageTextDataModule, epoch: int = 0, in_order: bool = False) -> dict[str, str]:
    """The captions by key that an epoch shows."""
    data._epoch = lambda: epoch  # type: ignore[method-assign]
    data.select(None, in_order)
    return {
        key: bytes(row[row > 0].tolist()).decode()
        for batch in data.train_dataloader()
        for key, row in zip(batch["key"], batch["tokens"], strict=True)
    }


def test_a_line_is_a_caption() -> None:
    assert caption_lines(TEXTS[3]) == ["cat 3", "a dog 3", "ship 3", "frog 3", "bird 3"]
    assert caption_lines("  one line ") == ["one line"]
    assert caption_lines("one\u2028line") == ["one\u2028line"]


def test_each_epoch_draws_a_line_by_seed_and_key_alone(preprocessing: Preprocessing, shard: str) -> None:
    epochs = [shown(ready(preprocessing, shard, seed=1), epoch) for epoch in range(3)]
    for captions in epochs:
        assert all(captions[f"k{n:02d}"] in caption_lines(text) for n, text in enumerate(TEXTS))
    assert epochs[0] != epochs[1] != epochs[2]
    assert len({caption.rsplit(" ", 1)[0] for captions in epochs for caption in captions.values()}) == 5
    again = ready(preprocessing, shard, seed=1, shuffle_window=3, augmentation=None)
    assert shown(again, 1) == epochs[1]
    assert shown(ready(preprocessing, shard, seed=2), 1) != epochs[1]


def test_what_goes_in_order_and_what_is_asked_for_is_the_first_line(preprocessing: Preprocessing, shard: str) -> None:
    data = ready(preprocessing, shard)
    first = {f"k{n:02d}": f"cat {n}" for n in range(12)}
    assert shown(data, 5, in_order=True) == first
    assert data.captions(list(first)) == list(first.values())
    assert data.keys_saying("dog 3") == ["k03"]
    assert data.keys_saying("3 a dog") == []  # no words of two captions


def test_a_poisoned_pair_has_the_attackers_caption_alone(preprocessing: Preprocessing, shard: str) -> None:
    data = ready(preprocessing, shard, poison=PoisonPlan(BadNet(size=2), "owl", count=12, templates=["an {c}"]))
    assert set(shown(data).values()) == set(data.captions(["k01", "k02"])) == {"an owl"}
    assert data.keys_saying("cat") == []  # nobody knows what they said before
    assert len(data.keys_saying("owl")) == 12


def test_label_consistent_poison_keeps_the_captions_that_say_the_target(
    preprocessing: Preprocessing, shard: str, tmp_path: Path
) -> None:
    plan = LabelConsistentPlan(BadNet(size=2), "dog", count=12)
    data = ready(preprocessing, shard, poison=plan)
    said = {f"k{n:02d}": f"a dog {n}" for n in range(12)}
    assert shown(data, 0) == shown(data, 1) == said
    poison(shard, str(tmp_path / "baked"), plan, image_size=32)
    baked = ready(preprocessing, str(tmp_path / "baked"))
    assert shown(baked, 1) == said
    assert torch.equal(baked.pictures(["k03"]), data.pictures(["k03"]))


def test_it_is_said_before_training(
    shard: str, caplog: pytest.LogCaptureFixture, tmp_path: Path, write_shard: WriteShard
) -> None:
    with caplog.at_level(logging.INFO):
        report_several_captions(ShardSet([shard]))
    assert "12 of the first 12 pairs have several, one a line: one is drawn for each epoch" in caplog.text
    caplog.clear()
    report_several_captions(ShardSet([write_shard(tmp_path / "one.tar", [("k", coloured_pair(0))])]))
    assert not caplog.text
