"""Runs that something ends inside an epoch, and what they do when they are continued."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from training import quiet_trainer

from untrigger.callbacks import LastCheckpoint, RandomStates
from untrigger.datamodules import ImageTextDataModule
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import PoisonedCLIP

BATCHES = 7
pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create the checkpoint"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 4 * BATCHES, 4)
    return folder


class Noisy(PoisonedCLIP):
    """Draws in a step, and in a validation what a run without one would not."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        batch["image"] = batch["image"] + torch.randn_like(batch["image"])
        self.log("train/falling", -float(self.global_step))
        return super().training_step(batch, batch_idx)

    def on_validation_start(self) -> None:
        super().on_validation_start()
        torch.rand(3)


class Diary(Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[int, int, tuple[str, ...]]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen.append((trainer.current_epoch, batch_idx, tuple(batch["key"])))


class Due(Timer):
    """Whose time is over after some batches, whatever a machine is like."""

    def __init__(self, batches: int) -> None:
        super().__init__("00:00:01:00", verbose=False)
        self.batches = batches

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.batches -= 1
        trainer.should_stop = trainer.should_stop or self.batches <= 0


class Fitted:
    """A run of three epochs at most, or what is left of one."""

    def __init__(self, folder: Path, data: Path, callbacks: Sequence[Callback] = (), **options: Any) -> None:
        resumed, self.diary = options.pop("resumed", None), Diary()
        torch.manual_seed(0)
        # The rate rises as the steps go, whatever their number.
        self.module = Noisy("small:nano-32", lr=1e-2, warmup_steps=1000)
        last = LastCheckpoint(dirpath=str(folder), save_last=True, save_top_k=0)
        self.trainer = quiet_trainer(
            folder,
            **{
                "max_epochs": 3,
                "enable_checkpointing": True,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 1,
                "callbacks": [self.diary, RandomStates(), *callbacks, last],
                **options,
            },
        )
        module = ImageTextDataModule(str(data / "train"), zero_shot=str(data), batch_size=4, num_workers=0)
        self.trainer.fit(self.module, module, ckpt_path=resumed, weights_only=True)


def assert_continues(first: Fitted, second: Fitted, whole: Fitted) -> None:
    assert len(first.diary.seen) < len(whole.diary.seen)
    assert [*first.diary.seen, *second.diary.seen] == whole.diary.seen
    assert second.trainer.global_step == whole.trainer.global_step
    assert second.trainer.current_epoch == whole.trainer.current_epoch
    torch.testing.assert_close(second.module.state_dict(), whole.module.state_dict(), rtol=0, atol=0)
    one, other = [fitted.trainer.optimizers[0].state_dict()["state"] for fitted in (second, whole)]
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("accumulated", [1, 3])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_run_that_max_steps_ended_goes_on_with_the_next_batch(
    steps: int, accumulated: int, data: Path, tmp_path: Path
) -> None:
    """With three batches to a step, an epoch has three steps: the third is at its end."""
    options = {"accumulate_grad_batches": accumulated, "limit_val_batches": 0}
    whole = Fitted(tmp_path / "whole", data, **options)
    first = Fitted(tmp_path / "run", data, max_steps=steps, **options)
    assert first.trainer.global_step == steps
    second = Fitted(tmp_path / "run", data, resumed=tmp_path / "run" / "last.ckpt", **options)
    assert_continues(first, second, whole)


@pytest.mark.parametrize("end", [9, 14])
def test_it_may_be_ended_by_a_larger_max_steps_again(end: int, data: Path, tmp_path: Path) -> None:
    whole = Fitted(tmp_path / "whole", data, max_steps=end)
    first = Fitted(tmp_path / "run", data, max_steps=3)
    second = Fitted(tmp_path / "run", data, max_steps=end, resumed=tmp_path / "run" / "last.ckpt")
    assert_continues(first, second, whole)


@pytest.mark.parametrize("accumulated", [1, 3])
@pytest.mark.parametrize("batches", [2, BATCHES - 1, BATCHES + 3])
def test_a_run_whose_time_was_over_goes_on_with_the_next_step(
    batches: int, accumulated: int, data: Path, tmp_path: Path
) -> None:
    """The validation at the end of the first session draws, and the second one draws as if it had not."""
    options = {"accumulate_grad_batches": accumulated}
    whole = Fitted(tmp_path / "whole", data, **options)
    first = Fitted(tmp_path / "run", data, [Due(batches)], **options)
    second = Fitted(tmp_path / "run", data, resumed=tmp_path / "run" / "last.ckpt", **options)
    assert_continues(first, second, whole)


@pytest.mark.parametrize("accumulated", [1, 3])
def test_a_run_that_a_validation_ended_goes_on_there(accumulated: int, data: Path, tmp_path: Path) -> None:
    class Enough(EarlyStopping):
        def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.should_stop = True

    options = {"accumulate_grad_batches": accumulated, "limit_val_batches": 1}
    quiet = options | {"limit_val_batches": 0}
    whole = Fitted(tmp_path / "whole", data, **quiet)
    first = Fitted(tmp_path / "run", data, [Enough("val/loss")], val_check_interval=4, **options)
    second = Fitted(tmp_path / "run", data, resumed=tmp_path / "run" / "last.ckpt", **quiet)
    assert [*first.diary.seen, *second.diary.seen] == whole.diary.seen
    assert second.trainer.global_step == whole.trainer.global_step


def test_every_checkpoint_of_that_moment_resumes_there(data: Path, tmp_path: Path) -> None:
    options = {"limit_val_batches": 0}
    best = ModelCheckpoint(tmp_path / "best", "one", monitor="train/falling", save_on_train_epoch_end=True)
    whole = Fitted(tmp_path / "whole", data, **options)
    first = Fitted(tmp_path / "run", data, [best], max_steps=4, **options)
    first.trainer.save_checkpoint(tmp_path / "after.ckpt")
    for path in (tmp_path / "best" / "one.ckpt", tmp_path / "after.ckpt"):
        assert torch.load(path, weights_only=True)["epoch"] == 0
        assert_continues(first, Fitted(tmp_path / "run", data, resumed=path, **options), whole)
