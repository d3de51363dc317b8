"""Every phase of InverTune on the device, its naming of the target among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_device import GPU, Bench
from torch import Tensor

from untrigger.datamodules import ImageTextDataModule
from untrigger.lightning_modules import InversionOptions, InverTune, PatchOptions, TuningOptions
from untrigger.lightning_modules.invertune.sought import SoughtPixels

# Where the model before is copied.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")


@pytest.mark.parametrize("name", ["patch", "count", "invert", "locate", "tune", "try"])
def test_every_phase(name: str, bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sought: list[Tensor] = []  # there is no backward pass on this device
    monkeypatch.setattr(SoughtPixels, "step", lambda pixels, loss, trainer: sought.append(loss))
    options: dict[str, Any] = {
        "patch": PatchOptions(epochs=1, steps=2, counted_pairs=16),
        "inversion": InversionOptions(epochs=1, steps=2),
        "tuning": TuningOptions(reference_pairs=16, epochs=1, steps=2),
    }
    clip = InverTune("small:nano-32", **options)
    data = ImageTextDataModule(
        str(folder / "train"), zero_shot=str(folder), batch_size=8, eval_batch_size=16, num_workers=0
    )
    bench.attach(clip, data)
    clip.on_fit_start()
    # What the phases before would have found: values, which there are none of on this device.
    clip.given_target, clip.patch = clip.classnames[0], torch.rand(3, 5, 5)
    clip.trigger = torch.rand(3, 32, 32), torch.rand(3, 32, 32)
    clip.neurons = {"stages.7": torch.rand(32, 8, 8) > 0.5}
    phase: Any = clip.phases[name]
    phase.begin(clip)
    phase.select(clip, 0)
    phase.prepare(clip)
    batch = bench.batch(data.train_dataloader())
    with bench.steps():
        clip.encoder.train(phase.train_mode)
        loss: Tensor | None = phase.step(clip, batch, 0)
    assert (loss is not None) == (name == "tune")
    assert bool(sought) == (name in ("patch", "invert"))
    for of_step in sought if loss is None else [loss]:
        assert (of_step.device, of_step.requires_grad, tuple(of_step.shape)) == (GPU, True, ())
    for part in clip.losses.values():
        assert part.device == GPU
