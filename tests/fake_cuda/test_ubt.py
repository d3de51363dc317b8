"""Every phase of UBT on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_device import GPU, Bench, DevicesMixed
from torch import Tensor

from untrigger.datamodules import ImageTextDataModule
from untrigger.lightning_modules import (
    UBT,
    BlurFragility,
    ColourMargin,
    DetailMargin,
    NegativeRobustness,
    OutlineMargin,
    OverfittedSimilarity,
    ProbeOptions,
    RandomSuspicion,
    RepairOptions,
    SimilarityGain,
)
from untrigger.lightning_modules.ubt.findings import POISONED
from untrigger.lightning_modules.words.captions import CaptionTokens
from untrigger.lightning_modules.words.words import Words

# Where the model before is copied.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")

EVERY = (
    OverfittedSimilarity,
    SimilarityGain,
    DetailMargin,
    ColourMargin,
    BlurFragility,
    NegativeRobustness,
    OutlineMargin,
    RandomSuspicion,
)
SHAPES = ["circle", "heart", "star"]


def attached(bench: Bench, folder: Path) -> UBT:
    """On the device, in its first phase."""
    probe, repair = ProbeOptions(candidates=4, epochs=1, steps=2), RepairOptions(epochs=1, steps=2, batch_size=8)
    ubt = UBT("small:nano-32", evidence=[kind() for kind in EVERY], probe=probe, repair=repair, sampled_pairs=32)
    data = ImageTextDataModule(
        str(folder / "train"), zero_shot=str(folder), batch_size=8, eval_batch_size=160, num_workers=0
    )
    bench.attach(ubt, data)
    tokens = ubt.preprocessing.tokenize(SHAPES)
    wanted = [int(row[1]) for row in tokens]
    ubt.findings.words = Words([[token] for token in wanted], SHAPES, [[f"a photo of a {shape}."] for shape in SHAPES])
    ubt.on_fit_start()
    return ubt


def go_through(ubt: UBT, bench: Bench) -> Tensor | None:
    """The phase that runs, as ``PhasedCLIPModule`` goes through it: what a step gives."""
    phase: Any = ubt.running
    phase.select(ubt, 0)
    phase.prepare(ubt)
    batch = bench.batch(ubt.data.train_dataloader())  # type: ignore[attr-defined]
    with bench.steps():
        ubt.encoder.train(phase.train_mode)
        loss: Tensor | None = phase.step(ubt, batch, 0)
        if loss is not None:
            ubt.log_losses(loss, len(batch["key"]), **ubt._parts)
    return loss


def end(ubt: UBT) -> str | None:
    """Of the phase that runs: its successor. What the score noted of captions came from the device, and is no token."""
    phase: Any = ubt.running
    successor: str | None = phase.end(ubt)
    if phase.name == "score":
        captions = CaptionTokens(ubt.preprocessing.tokenize)
        captions.add(ubt.preprocessing.tokenize(ubt.data.captions(ubt.findings.keys)))
        ubt.findings.captions = captions
    return successor


def test_every_phase(bench: Bench, folder: Path) -> None:
    ubt = attached(bench, folder)
    for name in ("score", "overfit", "ask the copy", "probe", "verify", "repair"):
        if ubt.running is None or ubt.running.name != name:
            ubt._enter(name)
        loss = go_through(ubt, bench)
        assert (loss is not None) == (name in ("overfit", "probe", "repair"))
        assert loss is None or (loss.device == GPU and loss.requires_grad)
        successor = end(ubt)
        if name == "verify":
            # No true numbers, no verdict: some pairs are poisoned all the same.
            ubt.findings.decision[:8], ubt.findings.poisoned_with[:8] = POISONED, np.arange(8) % 3
        else:
            assert successor in ubt.phases
    assert set(ubt.phases) == {"score", "overfit", "ask the copy", "probe", "verify", "repair"}
    assert {part.device for part in ubt.encoder.parameters()} == {GPU}
    assert {tensor.device.type for tensor in ubt.answer.values()} == {"cpu"}


def test_words_are_looked_for(bench: Bench, folder: Path) -> None:
    ubt = attached(bench, folder)
    ubt.findings.words = Words()
    ubt.phases["score"].begin(ubt)
    assert len(ubt.findings.words)


def test_a_planted_index_of_the_host_is_caught(bench: Bench, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ubt = attached(bench, folder)
    go_through(ubt, bench)
    end(ubt)
    ubt.findings.seen.update({f"overfitted/{piece.name}": ubt.findings.seen["poisoned"] for piece in ubt.evidence})
    ubt._enter("probe")
    repair: Any = ubt.running
    turn = repair._turn
    monkeypatch.setattr(repair, "_turn", lambda *arguments: turn(*arguments).to(GPU, non_blocking=True))
    with pytest.raises(DevicesMixed):
        go_through(ubt, bench)
    monkeypatch.setattr(repair, "_turn", turn)
    go_through(ubt, bench)
    with pytest.raises(DevicesMixed), bench.steps():
        repair._word_of[torch.arange(3)]
