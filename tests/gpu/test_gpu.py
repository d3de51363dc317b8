"""What can only be seen on a GPU. Left out where there is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import nn
from training import quiet_trainer

from untrigger.datamodules import ImageTextDataModule
from untrigger.datamodules.generated import write_generated_data
from untrigger.lightning_modules import PoisonedCLIP

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_generated_data(folder, 64, 40)
    return folder


def module(encoder: str = "small:nano-32", **arguments: Any) -> Any:
    seed_everything(0)
    return PoisonedCLIP(encoder, **({"lr": 1e-3} | arguments))


def run(folder: Path, root: Path, precision: str, accelerator: str = "gpu", **arguments: Any) -> tuple[Any, float]:
    """A fit of four steps and a validation: the module and the last loss."""
    clip = module(**arguments)
    trainer = quiet_trainer(
        root, accelerator=accelerator, devices=1, precision=precision, max_steps=4, num_sanity_val_steps=0
    )
    data = ImageTextDataModule(str(folder / "train"), str(folder), batch_size=16, num_workers=0)
    trainer.fit(clip, data)
    loss = float(trainer.callback_metrics["train/loss"])
    trainer.validate(clip, data, verbose=False)
    return clip, loss


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_run_in_each_precision_has_the_loss_of_one_on_the_cpu(precision: str, folder: Path, tmp_path: Path) -> None:
    clip, loss = run(folder, tmp_path, precision)
    _, expected = run(folder, tmp_path, "32-true", "cpu")
    assert loss == pytest.approx(expected, rel=0.03)
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in clip.parameters())


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 4}], ids=["whole", "micro-batches"])
def test_a_compiled_run_has_the_loss_of_a_plain_one(options: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    compiled, loss = run(folder, tmp_path, "bf16-mixed", compile=True, channels_last=True, **options)
    plain, expected = run(folder, tmp_path, "bf16-mixed", **options)
    assert loss == pytest.approx(expected, rel=0.03)
    assert list(compiled.state_dict()) == list(plain.state_dict())


def test_ddp_on_one_device_with_synchronised_batch_norm(folder: Path, tmp_path: Path) -> None:
    arguments = {
        "--model": "PoisonedCLIP",
        "--model.encoder": "small:nano-32",
        "--model.local_loss": "true",
        "--model.micro_batch_size": "4",
        "--data": "ImageTextDataModule",
        "--data.train_shards": str(folder / "train"),
        "--data.zero_shot": str(folder),
        "--data.batch_size": "16",
        "--data.num_workers": "0",
        "--trainer.accelerator": "gpu",
        "--trainer.devices": "1",
        "--trainer.strategy": "ddp",
        "--trainer.sync_batchnorm": "true",
        "--trainer.precision": "bf16-mixed",
        "--trainer.max_epochs": "1",
        "--trainer.default_root_dir": str(tmp_path / "run"),
    }
    words = [word for pair in arguments.items() for word in pair]
    done = subprocess.run([sys.executable, "-m", "untrigger.cli", "fit", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    names = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    assert list(names) == list(module().state_dict())


def batch(clip: Any, count: int) -> dict[str, Any]:
    captions = [f"a photo of number {number}" for number in range(count)]
    return {
        "key": captions,
        "image": torch.randn(count, 3, 32, 32, device="cuda"),
        "tokens": clip.preprocessing.tokenize(captions).cuda(),
    }


def step(clip: Any, given: dict[str, Any]) -> None:
    with torch.autocast("cuda", torch.bfloat16):
        loss = clip.training_step(given, 0)
    loss.backward()


def quiet(clip: Any) -> Any:
    """On the GPU, with nobody who logs."""
    clip.log_losses = lambda *_, **__: None
    return clip.cuda()


def test_a_batch_in_micro_batches_takes_a_fraction_of_the_memory() -> None:
    peaks = []
    for size in (None, 128):
        clip = quiet(module("small:base-32", micro_batch_size=size))
        given = batch(clip, 1024)
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step(clip, given)
        peaks.append(torch.cuda.max_memory_allocated() - held)
    assert peaks[1] < 0.4 * peaks[0]


@contextmanager
def no_waiting() -> Iterator[None]:
    """Inside, an operation that waits for the GPU raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 4}], ids=["whole", "micro-batches"])
def test_a_step_does_not_wait_for_the_gpu(options: dict[str, Any]) -> None:
    clip = quiet(module(**options))
    clip.encoder.text.norm = nn.Sequential(clip.encoder.text.norm, nn.Dropout(0.1))
    given = batch(clip, 16)
    step(clip, given)
    before = clip.encoder.logit_scale.grad.clone()
    with no_waiting():
        step(clip, given)
        with pytest.raises(RuntimeError, match="synchronizing CUDA operation"):
            given["image"].sum().item()
    assert not torch.equal(clip.encoder.logit_scale.grad, before)
