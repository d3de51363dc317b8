from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy, EvaluationSample
from untrigger.callbacks.measures.rate import Rate
from untrigger.callbacks.measures.zero_shot_measure import predictions
from untrigger.contracts import ClassLogits, UserMistake

# By hand, from the tables in conftest.py. Five pictures are not cars (the target): three of them become cars under the
# trigger, two are taken for cars without it. Counting the cars too would give 4/7, and 3/7 with the cars kept in the
# denominator only.
BY_HAND = {
    "clean_accuracy": 4 / 7,
    "attack_success_rate": 3 / 5,
    "clean_target_rate": 2 / 5,
    "triggered_accuracy": 2 / 7,
    "non_target_triggered_accuracy": 1 / 5,
}
# The second attack's target is "bird": four pictures are something else.
SECOND_BY_HAND = {
    "attack_success_rate": 3 / 4,
    "clean_target_rate": 0.0,
    "triggered_accuracy": 2 / 7,
    "non_target_triggered_accuracy": 1 / 4,
}


def floats(metrics: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items() if not key.startswith("train/")}


@pytest.mark.parametrize(("command", "stage"), [("fit", "val"), ("validate", "val"), ("test", "test")])
def test_figures_are_those_worked_out_by_hand(run: Any, command: str, stage: str) -> None:
    trainer = run.trainer(CleanAccuracy(), AttackSuccessRate(), max_epochs=2)
    getattr(trainer, command)(run.Module(), datamodule=run.Data())
    assert floats(trainer.callback_metrics) == pytest.approx({f"{stage}/{key}": v for key, v in BY_HAND.items()})


def test_each_of_several_attacks_has_its_figures_and_plain_keys_are_means(run: Any) -> None:
    trainer = run.trainer(CleanAccuracy(), AttackSuccessRate())
    trainer.validate(run.Module(), datamodule=run.Data(run.badnet | run.second))
    expected = {"val/clean_accuracy": 4 / 7}
    for key, second in SECOND_BY_HAND.items():
        expected[f"val/{key}/BadNet"] = BY_HAND[key]
        expected[f"val/{key}/BadNet-2"] = second
        expected[f"val/{key}"] = (BY_HAND[key] + second) / 2
    assert floats(trainer.callback_metrics) == pytest.approx(expected)


def test_no_attack_logs_clean_accuracy_only(run: Any) -> None:
    trainer = run.trainer(CleanAccuracy(), AttackSuccessRate())
    trainer.validate(run.Module(), datamodule=run.Data({}))
    assert floats(trainer.callback_metrics) == pytest.approx({"val/clean_accuracy": 4 / 7})


class _CountingAccuracy(CleanAccuracy):
    pictures = 0

    def count(self, label: Tensor, outputs: ClassLogits, rates: dict[str, Rate]) -> None:
        self.pictures += len(label)
        super().count(label, outputs, rates)


def test_sanity_check_is_not_counted(run: Any) -> None:
    accuracy = _CountingAccuracy()
    run.trainer(accuracy, num_sanity_val_steps=-1).fit(run.Module(), datamodule=run.Data())
    assert accuracy.pictures == 7


class _Forget(Callback):
    """Makes the module's predictions wrong from the second validation on."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            pl_module.logits = lambda images: torch.zeros(len(images), 3).index_fill(1, torch.tensor([1]), 1.0)


def test_a_later_validation_starts_from_zero(run: Any) -> None:
    trainer = run.trainer(_Forget(), CleanAccuracy(), max_epochs=2)
    trainer.fit(run.Module(), datamodule=run.Data())
    assert float(trainer.callback_metrics["val/clean_accuracy"]) == pytest.approx(2 / 7)


def test_rows_that_are_not_finite_predict_no_class() -> None:
    logits = torch.tensor([[float("nan"), 1.0], [0.0, float("inf")], [2.0, 1.0]])
    assert predictions(logits).tolist() == [-1, -1, 0]


def test_rate_of_nothing_is_not_a_number() -> None:
    rate = Rate()
    rate.update(torch.tensor([True]), torch.tensor([False]))
    assert rate.compute().isnan()


def test_run_without_a_data_module_is_one_clear_line(run: Any) -> None:
    data = run.Data()
    trainer = run.trainer(CleanAccuracy())
    data.trainer = trainer
    with pytest.raises(UserMistake, match="no data module"):
        trainer.validate(run.Module(), dataloaders=data.val_dataloader())


def test_two_ranks_count_every_picture_once(tmp_path: Path, run: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The way Lightning starts its ranks, but all at once.
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).parents[1] / "two_ranks.py"), str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | shared | {"LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    for rank in ranks:
        _, errors = rank.communicate(timeout=300)
        assert rank.returncode == 0, errors
    expected = pytest.approx({f"val/{key}": value for key, value in BY_HAND.items()})
    for rank in range(2):
        assert json.loads((tmp_path / f"rank{rank}.json").read_text()) == expected
    # Two batches of four pairs on each rank.
    assert (tmp_path / "results.csv").read_text().splitlines()[1].endswith(",16,0.2")
    # And the sample of five is the one that a single rank keeps.
    run.trainer(EvaluationSample(pictures=5)).fit(run.ShowingModule(), datamodule=run.Data())
    with np.load(tmp_path / "evaluation.npz") as of_two, np.load(run.folder / "evaluation.npz") as of_one:
        assert {name: of_two[name].tolist() for name in of_two} == {name: of_one[name].tolist() for name in of_one}
        assert len(of_two["label"]) == 5
