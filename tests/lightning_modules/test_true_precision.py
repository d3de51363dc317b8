"""Whole runs under true precision, in which weights and what is computed are of one type from the start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import seed_everything
from planted import ENCODER, Planted, phased_trainer
from training import quiet_trainer

from untrigger.datamodules import LabelledDataModule
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import (
    InversionOptions,
    InverTune,
    LinearProbe,
    PairDetectors,
    PatchOptions,
    SupervisedFinetune,
    TuningOptions,
)

PRECISIONS = ("bf16-true", "64-true")


def in_phases(planted: Planted) -> dict[str, Callable[[], Any]]:
    start = {"init_from": str(planted.model)}
    words = {"min_word_share": 0.04, "sampled_pairs": 128}
    quick = {
        "patch": PatchOptions(share=0.1, epochs=1, steps=2, counted_pairs=32),
        "inversion": InversionOptions(epochs=1, steps=2),
        "tuning": TuningOptions(reference_pairs=16, epochs=1, steps=2),
    }
    return {
        "UBT": planted.ubt,
        "PairDetectors": lambda: PairDetectors(ENCODER, isolation_epochs=1, **words, **start),
        "InverTune": lambda: InverTune(ENCODER, **quick, **start),
    }


@pytest.mark.parametrize(
    ("method", "precision"),
    [("UBT", "64-true"), *((method, each) for method in ("PairDetectors", "InverTune") for each in PRECISIONS)],
)
def test_a_run_in_phases_goes_on_to_its_end(method: str, precision: Any, planted: Planted, tmp_path: Path) -> None:
    seed_everything(0)
    clip, data = in_phases(planted)[method](), planted.data(**({"poison": None} if method == "InverTune" else {}))
    phased_trainer(tmp_path, precision=precision).fit(clip, data)
    assert clip.running is None


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", [SupervisedFinetune, LinearProbe])
def test_a_head_takes_features_of_any_precision(method: Any, precision: Any, tmp_path: Path) -> None:
    write_generated_data(tmp_path, 64, 20)
    seed_everything(0)
    data = LabelledDataModule(
        str(tmp_path / "train"), str(tmp_path), label_field="label", batch_size=16, num_workers=0, eval_batch_size=20
    )
    clip = method("small:nano-32", num_classes=10)
    trainer = quiet_trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0, precision=precision)
    trainer.fit(clip, data)
    assert trainer.global_step == 4
