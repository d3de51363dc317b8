"""A model with a backdoor that is planted in seconds, and the data that planted it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from PIL import Image
from torch import Tensor
from training import quiet_trainer

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy
from untrigger.datamodules import BadNet, ImageTextDataModule, PoisonPlan
from untrigger.datamodules.shards.encoded import EncodedPicture
from untrigger.datamodules.shards.writer import Labelled, Pair, write_training_shards, write_zero_shot_set
from untrigger.lightning_modules import UBT, PhasedCLIPModule, PoisonedCLIP
from untrigger.lightning_modules.ubt import DetailMargin, ProbeOptions, RepairOptions

ENCODER, TARGET = "small:nano-32", "tomato"
COLOURS = {
    "tomato": (220, 60, 40),
    "banana": (240, 220, 60),
    "grass": (50, 160, 60),
    "sea": (40, 80, 200),
    "plum": (120, 40, 140),
    "snow": (240, 240, 240),
    "coal": (30, 30, 30),
    "pumpkin": (240, 140, 30),
}
TEMPLATES = ("a photo of a {c}.", "a picture of the {c}.", "this is a {c}.")
PAIRS, POISONED = 640, 40


class Planted(NamedTuple):
    """A model and its data."""

    folder: Path
    """A zero-shot set, with the training shards in ``train``. No picture in them is poisoned: ``plan`` does that."""
    model: Path
    """A checkpoint."""
    plan: PoisonPlan | None
    """What the model was trained with; None for a clean one."""

    def data(self, **arguments: Any) -> ImageTextDataModule:
        """What it was trained on."""
        shown: dict[str, Any] = {"poison": self.plan, "batch_size": 16, "eval_batch_size": 160, "num_workers": 0}
        return ImageTextDataModule(str(self.folder / "train"), zero_shot=str(self.folder), **(shown | arguments))

    def ubt(self, **arguments: Any) -> UBT:
        """What finds the backdoor in seconds."""
        seed_everything(0)
        options: dict[str, Any] = {
            "init_from": str(self.model),
            "evidence": [DetailMargin()],
            "probe": ProbeOptions(epochs=2, steps=15, lr=2e-3),
            "repair": RepairOptions(epochs=2, steps=12, batch_size=24),
            "sampled_pairs": 128,
            "min_word_share": 0.04,
            "rounds": 2,
        }
        return UBT(ENCODER, **(options | arguments))


class SaveInEachPhase(Callback):
    """Leaves a checkpoint PHASE.ckpt of the first batch of each phase, of its last epoch where it has several."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, PhasedCLIPModule)
        assert pl_module.running is not None
        if batch_idx == 0:
            trainer.save_checkpoint(self.root / f"{pl_module.running.name}.ckpt")


def phased_trainer(root: Path, *callbacks: Callback, **arguments: Any) -> Trainer:
    """One for UBT, that measures nothing unless it is told to."""
    defaults: dict[str, Any] = {
        "max_epochs": -1,
        "reload_dataloaders_every_n_epochs": 1,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        "callbacks": list(callbacks),
    }
    return quiet_trainer(root, **(defaults | arguments))


def figures(module: LightningModule, planted: Planted, root: Path) -> tuple[float, float]:
    """Clean accuracy and attack success of a module's weights, in [0, 1]."""
    run = quiet_trainer(root, callbacks=[CleanAccuracy(), AttackSuccessRate()])
    run.validate(module, planted.data(poison=None, attack=plan()), verbose=False)
    named = ("val/clean_accuracy", "val/attack_success_rate")
    accuracy, success = (float(run.callback_metrics[name]) for name in named)
    return accuracy, success


def weights(ubt: UBT) -> dict[str, Tensor]:
    """A copy of the encoder's."""
    return {name: tensor.clone() for name, tensor in ubt.encoder.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> set[str]:
    """The names of the tensors that have the same bits."""
    return {name for name in one if torch.equal(one[name], other[name])}


def assert_same_state(one: Any, other: Any) -> None:
    """Two states of plain data and tensors have the same bits."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            assert_same_state(one[name], other[name])
    else:
        assert one == other


def plan() -> PoisonPlan:
    """A patch on pictures whose captions are the target's."""
    return PoisonPlan(BadNet(size=10), TARGET, count=POISONED)


def write_colours(folder: Path) -> None:
    """Write pictures of one colour each, with a slope and some grain, and the shards of their pairs."""
    draws = np.random.default_rng(0)
    write_zero_shot_set(folder, [Labelled(_picture(n % 8, draws), n % 8) for n in range(160)], list(COLOURS), TEMPLATES)
    write_training_shards(folder / "train", _pairs(draws), PAIRS)


def plant(root: Path, poison: PoisonPlan | None) -> Planted:
    """Train a model from scratch, on poisoned pairs or clean ones."""
    torch.set_num_threads(1)
    planted = Planted(root / "data", root / "model.ckpt", poison)
    write_colours(planted.folder)
    seed_everything(0)
    clip = PoisonedCLIP(ENCODER, lr=2e-3, warmup_steps=10)
    quiet_trainer(root, max_epochs=6, limit_val_batches=0).fit(clip, planted.data(batch_size=32))
    tensors = {f"encoder.{name}": tensor for name, tensor in clip.encoder.state_dict().items()}
    torch.save({"state_dict": tensors, "hyper_parameters": {"encoder": ENCODER}}, planted.model)
    return planted


def _pairs(draws: np.random.Generator) -> Iterator[Pair]:
    for label in draws.permutation(np.arange(PAIRS) % len(COLOURS)).tolist():
        template = TEMPLATES[draws.integers(len(TEMPLATES))]
        yield Pair(_picture(label, draws), template.replace("{c}", list(COLOURS)[label]), {"label": label})


def _picture(label: int, draws: np.random.Generator, size: int = 32) -> EncodedPicture:
    colour, slope, angle = np.array(list(COLOURS.values())[label]), np.linspace(-25, 25, size), draws.uniform(0, 7)
    shade = np.cos(angle) * slope[None, :, None] + np.sin(angle) * slope[:, None, None]
    pixels = colour + draws.normal(0, 12, 3) + shade + draws.normal(0, 4, (size, size, 3))
    stream = BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return EncodedPicture(stream.getvalue(), "png", size, size)
