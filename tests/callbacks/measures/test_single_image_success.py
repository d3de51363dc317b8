from __future__ import annotations

import csv
from typing import Any

import pytest
import torch
from torch import Tensor

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy, ResultsWriter, SingleImageSuccess
from untrigger.contracts import Attack, PictureAttack, UserMistake


class ZeroShotRun:
    """The written run, with attacks on given pictures, each of which says what it is taken for."""

    def __init__(self, run: Any, taken_for: dict[str, list[int]]) -> None:
        from_picture = run.Data()._test_batch

        class Data(run.Data):  # type: ignore[misc]
            @property
            def picture_attacks(self) -> list[PictureAttack]:
                shades = {name: torch.tensor(classes) for name, classes in taken_for.items()}
                blank = from_picture([0])["image"]
                return [
                    PictureAttack(name, 2, torch.cat([_shaded(blank, int(shade)) for shade in classes]))
                    for name, classes in shades.items()
                ]

        class Module(run.Module):  # type: ignore[misc]
            def encode_image(self, images: Tensor) -> Tensor:
                return images

            def zero_shot_logits(self, image_features: Tensor) -> Tensor:
                return self.logits(image_features)  # type: ignore[no-any-return]

        self.Data, self.Module = Data, Module


def _shaded(blank: Tensor, predicted: int) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.5, 0.4, 0.3), (0.25, 0.2, 0.3)))
    return ((40 * predicted / 255) * torch.ones_like(blank) - mean) / std


def floats(metrics: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items() if "success" in key}


@pytest.mark.parametrize(("command", "stage"), [("validate", "val"), ("test", "test")])
def test_success_is_the_share_of_given_pictures_taken_for_the_target(run: Any, command: str, stage: str) -> None:
    given = ZeroShotRun(run, {"SingleImage": [2, 0, 2, 2]})
    trainer = run.trainer(CleanAccuracy(), AttackSuccessRate(), SingleImageSuccess(), ResultsWriter())
    getattr(trainer, command)(given.Module(), datamodule=given.Data({}))
    assert floats(trainer.callback_metrics) == pytest.approx({f"{stage}/attack_success_rate": 0.75})
    with (run.folder / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["attack"], row["attack_success_rate"], row["clean_target_rate"]) == ("SingleImage", "0.75", "")


def test_beside_other_attacks_each_has_its_name_and_the_plain_key_is_theirs(run: Any) -> None:
    given = ZeroShotRun(run, {"SingleImage": [2, 0], "SingleImage-2": [0, 0]})
    trainer = run.trainer(CleanAccuracy(), AttackSuccessRate(), SingleImageSuccess(), ResultsWriter())
    trainer.validate(given.Module(), datamodule=given.Data(run.badnet | run.second))
    found = floats(trainer.callback_metrics)
    assert found["val/attack_success_rate/SingleImage"] == 0.5
    assert found["val/attack_success_rate/SingleImage-2"] == 0.0
    assert found["val/attack_success_rate"] == pytest.approx((3 / 5 + 3 / 4) / 2)
    with (run.folder / "results.csv").open(newline="") as file:
        rows = {row["attack"]: row["attack_success_rate"] for row in csv.DictReader(file)}
    assert rows == {"BadNet": "0.6", "BadNet-2": "0.75", "SingleImage": "0.5", "SingleImage-2": "0"}


def test_one_attack_of_each_kind_both_have_rows(run: Any) -> None:
    given = ZeroShotRun(run, {"SingleImage": [2, 0]})
    trainer = run.trainer(CleanAccuracy(), AttackSuccessRate(), SingleImageSuccess(), ResultsWriter())
    trainer.validate(given.Module(), datamodule=given.Data())
    with (run.folder / "results.csv").open(newline="") as file:
        rows = {row["attack"]: row["attack_success_rate"] for row in csv.DictReader(file)}
    assert rows == {"BadNet": "0.6", "SingleImage": "0.5"}


def test_a_module_that_cannot_classify_is_reported(run: Any) -> None:
    given = ZeroShotRun(run, {"SingleImage": [2]})
    with pytest.raises(UserMistake, match="has no encode_image and zero_shot_logits"):
        run.trainer(SingleImageSuccess()).validate(run.Module(), datamodule=given.Data({}))


def test_controls_have_their_figures_and_are_left_out_of_the_mean(run: Any) -> None:
    attack, control = Attack("DualKey", 1), Attack("DualKey-picture-only", 1, control_of="DualKey")
    under = {attack: [1, 1, 1, 0, 1, 2, 0], control: [0, 1, 1, 0, 2, 2, 0]}
    trainer = run.trainer(CleanAccuracy(), AttackSuccessRate(), ResultsWriter())
    trainer.validate(run.Module(), datamodule=run.Data(under))
    found = floats(trainer.callback_metrics)
    assert found == pytest.approx(
        {
            "val/attack_success_rate": 3 / 5,
            "val/attack_success_rate/DualKey": 3 / 5,
            "val/attack_success_rate/DualKey-picture-only": 1 / 5,
        }
    )
    with (run.folder / "results.csv").open(newline="") as file:
        assert [row["attack"] for row in csv.DictReader(file)] == ["DualKey", "DualKey-picture-only"]
