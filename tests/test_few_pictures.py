"""Test sets that are smaller than the number of ranks, on processes that share them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import encode_picture
from lightning.pytorch.strategies import DDPStrategy
from training import quiet_trainer

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy, EvaluationSample, ResultsWriter
from untrigger.datamodules import ImageTextDataModule
from untrigger.datamodules.poisoning import PoisonPlan
from untrigger.datamodules.triggers import Blended
from untrigger.lightning_modules import PoisonedCLIP
from untrigger.run_folder.evaluation import read_evaluation

WriteShard = Callable[[Path, Sequence[tuple[str, dict[str, bytes]]]], str]


def write_set(folder: Path, pictures: int, broken: Sequence[int], write_shard: WriteShard) -> None:
    folder.mkdir()
    (folder / "classnames.txt").write_text("cat\ndog\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    draw = np.random.default_rng(0)
    samples = []
    for number in range(pictures):
        data = encode_picture(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        samples.append((f"s{number}", {"png": data[:40] if number in broken else data, "cls": b"%d" % (number % 2)}))
    write_shard(folder / "test" / "0.tar", samples)
    (folder / "test" / "nshards.txt").write_text("1")


def measured(folder: Path, data: Path, **arguments: Any) -> tuple[dict[str, float], Any]:
    """The figures and the sample of a ``validate``."""
    torch.manual_seed(0)
    callbacks = [CleanAccuracy(), AttackSuccessRate(), ResultsWriter(), EvaluationSample()]
    trainer = quiet_trainer(folder, callbacks=callbacks, **arguments)
    (figures,) = trainer.validate(PoisonedCLIP("small:nano-32"), data_module(data), verbose=False)
    return figures, read_evaluation(folder)


def data_module(data: Path, **arguments: Any) -> ImageTextDataModule:
    attack = PoisonPlan(Blended(), "cat", count=1)
    return ImageTextDataModule(
        zero_shot=str(data), attack=attack, eval_batch_size=2, num_workers=0, max_bad_share=0.5, **arguments
    )


@pytest.mark.filterwarnings("ignore:There is no test picture to measure attack_success_rate")  # in a forked rank
@pytest.mark.parametrize(("pictures", "broken"), [(1, ()), (3, ()), (5, ()), (5, (3, 4))])
def test_four_ranks_measure_what_one_does(
    pictures: int, broken: Sequence[int], tmp_path: Path, write_shard: WriteShard
) -> None:
    torch.set_num_threads(1)
    write_set(tmp_path / "set", pictures, broken, write_shard)
    is_told = pytest.warns(UserWarning, match="no test picture to measure attack_success_rate")
    with is_told if pictures == 1 else nullcontext():  # it is of the target
        one, seen_by_one = measured(tmp_path / "one", tmp_path / "set", devices=1)
    four, seen_by_four = measured(tmp_path / "four", tmp_path / "set", devices=4, strategy="ddp_fork")
    np.testing.assert_equal(four, one)  # NaN where no picture counts
    assert len(seen_by_four.label) == pictures - len(broken)
    assert seen_by_four.key_hash.tolist() == seen_by_one.key_hash.tolist()
    np.testing.assert_allclose(seen_by_four.clean_similarity, seen_by_one.clean_similarity, atol=1e-3)


@pytest.mark.parametrize("broken", [(), (1, 2)])
def test_in_a_fit_every_rank_takes_every_step(
    broken: Sequence[int], tmp_path: Path, write_shard: WriteShard, write_pairs: Callable[..., list[str]]
) -> None:
    torch.set_num_threads(1)
    write_set(tmp_path / "set", 3, broken, write_shard)
    data = data_module(tmp_path / "set", train_shards=write_pairs([16]), batch_size=2)
    # A rank that took no step would let the others wait: the wrapper of the module asks all of them in each.
    strategy = DDPStrategy(start_method="fork", timeout=timedelta(seconds=30))
    trainer = quiet_trainer(tmp_path, devices=4, strategy=strategy, max_epochs=0, num_sanity_val_steps=-1)
    trainer.fit(PoisonedCLIP("small:nano-32"), data)
