"""The defence of the page on phases, as it stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from planted import ENCODER, Planted, phased_trainer
from typist import blocks

from untrigger.lightning_modules import PhasedCLIPModule

PAGE = Path(__file__).parents[3] / "docs" / "extending" / "phases.md"


class Keys(Callback):
    """Those of each phase, and a checkpoint in the middle of the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.of: dict[str, list[str]] = {"score": [], "finetune": []}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, PhasedCLIPModule)
        assert pl_module.running is not None
        self.of[pl_module.running.name] += batch["key"]
        if pl_module.running.name == "score" and batch_idx == 1:
            trainer.save_checkpoint(self.folder / "middle.ckpt")


def half_clip(planted: Planted) -> Any:
    (code,) = blocks(PAGE, "python")
    names: dict[str, Any] = {}
    exec(compile(code, "example", "exec", dont_inherit=True), names)
    seed_everything(0)
    return names["HalfCLIP"](ENCODER, init_from=str(planted.model))


def test_it_finetunes_on_the_more_similar_half_and_resumes_to_the_same_one(planted: Planted, tmp_path: Path) -> None:
    clip, keys = half_clip(planted), Keys(tmp_path)
    phased_trainer(tmp_path, keys).fit(clip, planted.data())
    seen = keys.of["score"]
    assert len(set(seen)) == len(seen)
    assert len(clip.similar) == (len(seen) + 1) // 2
    assert set(keys.of["finetune"]) <= set(clip.similar) < set(seen)
    again = half_clip(planted)
    phased_trainer(tmp_path).fit(again, planted.data(), ckpt_path=tmp_path / "middle.ckpt", weights_only=True)
    assert again.similar == clip.similar
