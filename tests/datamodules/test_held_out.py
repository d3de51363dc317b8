from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import coloured_pair

from untrigger.contracts import HeldOutBatch, Preprocessing, UserMistake
from untrigger.datamodules import BadNet, ImageTextDataModule, PoisonPlan

WritePairs = Callable[..., list[str]]


@pytest.fixture
def ready(preprocessing: Preprocessing) -> Callable[..., ImageTextDataModule]:
    """A data module with held-out pairs, of which nothing is trained."""

    def make(stage: str = "validate", **arguments: Any) -> ImageTextDataModule:
        attack = PoisonPlan(BadNet(size=4), "number 3", count=1)
        data = ImageTextDataModule(**({"num_workers": 0, "batch_size": 4, "attack": attack} | arguments))
        data.preprocessing = preprocessing
        data.setup(stage)
        return data

    return make


def read(data: ImageTextDataModule) -> list[HeldOutBatch]:
    return list(data.held_out_batches())


def test_every_pair_comes_once_also_where_keys_repeat_over_the_shards(
    write_pairs: WritePairs, ready: Callable[..., ImageTextDataModule]
) -> None:
    paths = [*write_pairs([4, 5]), *write_pairs([9], folder="other")]
    batches = read(ready(held_out=paths, eval_batch_size=4))
    captions = [caption for batch in batches for caption in batch["caption"]]
    assert captions == [f"picture number {number}" for number in [*range(9), *range(9)]]
    red = torch.cat([batch["image"] for batch in batches])[:, 0, 20, 20] * 0.2 + 0.5  # as the pictures are normalised
    assert (red * 255).round().tolist() == [*range(9), *range(9)]
    stamped = torch.cat([batch["triggered"]["BadNet"] for batch in batches])
    assert len(stamped) == 18
    named = torch.cat([batch["names_target"]["BadNet"] for batch in batches])
    assert named.nonzero().flatten().tolist() == [3, 12]


def test_pairs_of_one_key_are_each_read(
    tmp_path: Path, write_pairs: WritePairs, write_shard: Callable[..., str], ready: Callable[..., ImageTextDataModule]
) -> None:
    shards = [write_shard(tmp_path / f"{n}.tar", [("same", coloured_pair(n))]) for n in range(3)]
    (batch,) = read(ready(held_out=shards))
    assert batch["caption"] == [f"picture number {number}" for number in range(3)]


def test_broken_pairs_are_skipped_and_counted(
    write_pairs: WritePairs, ready: Callable[..., ImageTextDataModule], caplog: pytest.LogCaptureFixture
) -> None:
    paths = write_pairs([6, 6], broken=[1, 7])
    data = ready(held_out=paths, max_bad_share=0.2)
    for _ in range(2):  # each pass counts anew
        captions = [caption for batch in read(data) for caption in batch["caption"]]
        assert captions == [f"picture number {number}" for number in range(12) if number not in (1, 7)]
    assert "data.held_out: skipped, and will skip without a further word: broken picture (key 'k0001'" in caplog.text
    with pytest.raises(UserMistake, match=r"data\.held_out: 2 of 12 samples are bad, .*data\.max_bad_share=0\.1"):
        read(ready(held_out=paths, max_bad_share=0.1))
    with pytest.raises(UserMistake, match=r"data\.held_out: none of its 2 pairs can be used"):
        read(ready(held_out=write_pairs([2], broken=[0, 1]), max_bad_share=1.0))


def test_of_several_captions_the_first_is_shown(
    tmp_path: Path, write_shard: Callable[..., str], ready: Callable[..., ImageTextDataModule]
) -> None:
    pair = coloured_pair(1) | {"txt": b"a cat\na dog of number 3\n"}
    data = ready(held_out=write_shard(tmp_path / "0.tar", [("k", pair)]))
    (batch,) = read(data)
    assert batch["caption"] == ["a cat"]
    assert torch.equal(batch["tokens"], data._asked.tokenize(["a cat"]))
    assert batch["names_target"]["BadNet"].tolist() == [False]


def test_pairs_that_are_trained_on_are_not_held_out(
    tmp_path: Path, write_pairs: WritePairs, ready: Callable[..., ImageTextDataModule]
) -> None:
    paths = write_pairs([8, 8])
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "train")
    for held_out in (paths[1], str(link)):
        with pytest.raises(UserMistake, match=r"data\.held_out has .*, which is among data\.train_shards too"):
            ready("fit", train_shards=paths, held_out=held_out, attack=None)
    assert ready("fit", train_shards=paths[0], held_out=paths[1], attack=None).held_out_pairs == 8
