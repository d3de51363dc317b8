"""Options of the trainer that a run cannot keep are refused in one line, before it starts."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from fit_arguments import fit_arguments
from lightning.pytorch import LightningModule
from training import quiet_trainer

from untrigger.command_line.lightning_cli import UntriggerCLI
from untrigger.command_line.trainer_options import check_steps, settle_trainer
from untrigger.contracts import UserMistake
from untrigger.datamodules.generated import write_generated_data


@pytest.mark.parametrize(("option", "value"), [("gradient_clip_val", 1.0), ("accumulate_grad_batches", 2)])
def test_what_only_lightning_s_own_steps_have_is_refused_by_a_module_that_takes_them(
    option: str, value: Any, tmp_path: Path
) -> None:
    module, asked = LightningModule(), quiet_trainer(tmp_path, **{option: value})
    check_steps(asked, module)
    module.automatic_optimization = False
    check_steps(quiet_trainer(tmp_path), module)
    with pytest.raises(UserMistake, match=rf"LightningModule takes its steps by itself: leave trainer\.{option} out"):
        check_steps(asked, module)


def test_an_average_that_would_be_lost_is_refused_and_one_that_is_kept_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["untrigger"])
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    write_generated_data(tmp_path / "data", 32, 4)
    base = ["fit", *fit_arguments(tmp_path, tmp_path / "data"), "--trainer.max_epochs", "1", "--model.lr", "0.1"]
    averaging = "{class_path: StochasticWeightAveraging, init_args: {swa_lrs: 0.01}}"
    warnings.simplefilter("ignore")  # jsonargparse does not know a type of the callback's
    with pytest.raises(UserMistake, match=r"average would be lost: take .*EMAWeightAveraging"):
        UntriggerCLI([*base, f"--trainer.callbacks=[{averaging}]"])
    assert not (tmp_path / "run" / "last.ckpt").exists()
    averaging = "EMAWeightAveraging"
    run = UntriggerCLI([*base, "--trainer.callbacks", averaging, "--trainer.callbacks.decay", "0.5"])
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert not torch.equal(
        kept["state_dict"]["encoder.logit_scale"], kept["current_model_state"]["encoder.logit_scale"]
    )
    torch.testing.assert_close(kept["state_dict"], run.model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_clip_val": -1.0}, "gradient_clip_val is -1, with which nothing is clipped"),
        ({"gradient_clip_algorithm": "value"}, "gradient_clip_algorithm is value, but nothing is clipped without"),
        ({"min_epochs": 4, "max_epochs": 1}, "min_epochs is 4 and trainer.max_epochs 1"),
        ({"min_steps": 4, "max_steps": 2}, "min_steps is 4 and trainer.max_steps 2"),
    ],
)
def test_two_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    given = {"accumulate_grad_batches": 1, "barebones": False, "strategy": "auto"}
    with pytest.raises(UserMistake, match=message):
        settle_trainer(given | options)


def test_options_that_agree_are_left_alone() -> None:
    given = {"accumulate_grad_batches": 1, "barebones": False, "strategy": "auto"}
    given |= {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "norm", "min_epochs": 1, "max_epochs": -1}
    given |= {"min_steps": 2, "max_steps": 2}
    settled = dict(given)
    settle_trainer(settled)
    assert settled == given
