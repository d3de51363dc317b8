from __future__ import annotations

import csv
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from untrigger.command_line.lightning_cli import UntriggerCLI
from untrigger.contracts import UserMistake
from untrigger.datamodules import ImageTextDataModule
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import LocalDensityCLIP
from untrigger.lightning_modules.detection import LocalDensity


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 60, 10, shard_size=25)
    return folder


def test_predict_writes_the_densities_of_every_pair(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = LocalDensityCLIP("small:nano-32")
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    UntriggerCLI(
        [
            *("predict", "--model", "LocalDensityCLIP", "--model.encoder", "small:nano-32"),
            *("--model.init_from", str(tmp_path / "weights.pt"), "--model.neighbours", "4"),
            *("--model.reference_size", "20", "--model.seed", "3", "--data", "ImageTextDataModule"),
            *("--data.train_shards", str(folder / "train"), "--data.num_workers", "0", "--data.eval_batch_size", "16"),
            *("--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu"),
            *("--trainer.enable_progress_bar", "false"),
        ]
    )
    with (tmp_path / "similarities.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["key", "similarity", "k_distance", "slof", "dao"]
    # The same, from all pictures at once.
    data = ImageTextDataModule(str(folder / "train"))
    data.preprocessing = module.preprocessing
    data.setup("predict")
    keys, reference = [row["key"] for row in rows], data.some_keys(20, 3)
    assert len(set(keys)) == 60
    with torch.no_grad():
        features = {
            name: module.eval().encode_image(module.normalised(data.pictures(of)))
            for name, of in (("all", keys), ("reference", reference))
        }
    own = torch.tensor([reference.index(key) if key in reference else -1 for key in keys])
    expected = LocalDensity(features["reference"], 4)(features["all"], own)
    for name, scores in expected._asdict().items():
        torch.testing.assert_close(torch.tensor([float(row[name]) for row in rows]), scores, atol=2e-4, rtol=1e-3)


def test_some_keys_are_drawn_from_all_shards_without_repeats(folder: Path) -> None:
    data = ImageTextDataModule(str(folder / "train"))
    data.preprocessing = LocalDensityCLIP("small:nano-32").preprocessing
    data.setup("predict")
    every = list(chain.from_iterable(data._pairs.shards.keys()))
    assert data.some_keys(100, 0) == every
    drawn = data.some_keys(30, 0)
    assert len(set(drawn)) == 30
    assert drawn == sorted(drawn, key=every.index)
    assert drawn != data.some_keys(30, 1)
    indices = [every.index(key) for key in drawn]
    assert min(indices) < 25 <= 50 <= max(indices)


@pytest.mark.parametrize(("neighbours", "size"), [(0, 10), (10, 10)])
def test_a_neighbourhood_larger_than_its_reference_is_reported(neighbours: int, size: int) -> None:
    with pytest.raises(UserMistake, match=r"neighbours is"):
        LocalDensityCLIP("small:nano-32", neighbours=neighbours, reference_size=size)


def test_few_pairs_are_reported(folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    data = ImageTextDataModule(str(folder / "train" / "00002.tar"), num_workers=0)
    with pytest.raises(UserMistake, match="10 embeddings are too few for local density with 16 neighbours"):
        trainer.predict(LocalDensityCLIP("small:nano-32"), datamodule=data)
