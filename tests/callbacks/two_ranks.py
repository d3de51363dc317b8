"""Fits and tests on two ranks, which get four and three of the seven test pictures: ``python two_ranks.py FOLDER``."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch
from conftest import ShowingModule, WrittenData, WrittenRun
from lightning.fabric.utilities.warnings import PossibleUserWarning

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy, EvaluationSample, ResultsWriter


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    # Lightning's advice on figures that differ between ranks.
    warnings.filterwarnings("error", message=".*sync_dist.*", category=PossibleUserWarning)
    trainer = WrittenRun(folder).trainer(
        CleanAccuracy(),
        AttackSuccessRate(),
        ResultsWriter(),
        EvaluationSample(pictures=5),
        strategy="ddp",
        devices=2,
        use_distributed_sampler=False,
    )
    trainer.fit(ShowingModule(), datamodule=WrittenData())
    figures = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
