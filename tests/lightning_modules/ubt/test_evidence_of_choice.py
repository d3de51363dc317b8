from __future__ import annotations

import csv
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from planted import TARGET, Planted, assert_same_state, phased_trainer, same, weights
from torch import Tensor, nn

from untrigger.callbacks import SuspectsWriter
from untrigger.commands.poison.command import poison
from untrigger.contracts import UserMistake
from untrigger.datamodules import ImageTextDataModule
from untrigger.lightning_modules import UBT
from untrigger.lightning_modules.ubt import (
    DetailMargin,
    Evidence,
    OverfitOptions,
    OverfittedSimilarity,
    Pairs,
    ProbeOptions,
    RepairOptions,
    SimilarityGain,
)
from untrigger.lightning_modules.ubt.findings import BENIGN, POISONED

SHORT: dict[str, Any] = {
    "overfit": OverfitOptions(epochs=2),
    "probe": ProbeOptions(epochs=1, steps=2),
    "repair": RepairOptions(epochs=1, steps=2, batch_size=4),
    "sampled_pairs": 64,
    "rounds": 1,
}

ANY_WORD = ProbeOptions(epochs=1, steps=2, significance=1.0, min_moved=0.0, min_variety=0.0, min_fragility=-1.0)
"""The verdict says yes to whatever was judged, so that what follows is seen after a short probe."""


class Phases(Callback):
    """Notes the phase of each epoch, the modes of batch norm, and what evaluations are of."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.modes: dict[str, set[bool]] = {}
        self.keys: dict[str, set[str]] = {}
        self.evaluated: list[tuple[str, str]] = []
        self.began: dict[str, dict[str, Tensor]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, UBT)
        assert pl_module.running is not None
        self.names.append(pl_module.running.name)
        self.keys.setdefault(self.names[-1], set()).update(batch["key"])
        if self.names[-1] not in self.began:
            self.began[self.names[-1]] = weights(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        norms = {part.training for part in pl_module.modules() if isinstance(part, nn.BatchNorm2d)}
        self.modes.setdefault(self.names[-1], set()).update(norms)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, UBT)
        self.evaluated.append((pl_module.phase, pl_module.measured))

    @property
    def order(self) -> list[str]:
        return [name for name, _ in groupby(self.names)]


def test_evidence_of_the_copy_brings_the_phases_that_make_it(planted: Planted, tmp_path: Path) -> None:
    evidence = [OverfittedSimilarity(), SimilarityGain(), DetailMargin()]
    ubt, seen = planted.ubt(evidence=evidence, **SHORT), Phases()
    phased_trainer(tmp_path, seen, limit_val_batches=1).fit(ubt, planted.data())
    assert seen.order[:5] == ["score", "overfit", "ask the copy", "probe", "verify"]
    assert seen.evaluated[0] == ("overfit 2/2", "overfitted")
    assert seen.modes["overfit"] == {True}
    assert seen.modes["ask the copy"] == {False}
    began, copy = seen.began["score"], seen.began["ask the copy"]
    assert not {name for name in same(began, copy) if "running" not in name and "num_batches" not in name}
    assert same(began, seen.began["probe"]) == set(began)
    # The copy is overfitted on the weakest tenth.
    similarity = ubt.findings.seen["poisoned"]
    weakest = set(ubt.findings.keys_of(np.argsort(similarity, kind="stable")[:64]))
    assert len(seen.keys["overfit"]) == 64
    assert seen.keys["overfit"] == weakest
    assert {"poisoned", "overfitted", "overfitted/SimilarityGain", "probed"} <= set(ubt.findings.seen)
    torch.testing.assert_close(ubt.findings.suspicion["SimilarityGain"], ubt.findings.seen["overfitted"] - similarity)


class LastDigit(Evidence):
    """Suspects the pairs by the last digit of their key."""

    def measure(self, pairs: Pairs, model: str) -> Tensor:
        assert model == "poisoned"
        return torch.tensor([float(key[-1]) for key in pairs.keys])


def test_evidence_of_a_user_ranks_the_pairs_and_has_its_column(planted: Planted, tmp_path: Path) -> None:
    evidence = [LastDigit(), DetailMargin()]
    ubt, seen = planted.ubt(evidence=evidence, **(SHORT | {"probe": ANY_WORD})), Phases()
    phased_trainer(tmp_path, seen, SuspectsWriter()).fit(ubt, planted.data())
    assert seen.order[:3] == ["score", "probe", "verify"]
    with (tmp_path / "suspects.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {"key", "LastDigit", DetailMargin().name, "fall"} <= set(rows[0])
    assert rows
    assert all(float(row["LastDigit"]) == float(row["key"][-1]) for row in rows)
    assert {verdict["evidence"] for verdict in ubt.findings.verdicts} <= {"LastDigit", DetailMargin().name}


@pytest.mark.parametrize("kind", ["text", "table"])
def test_given_pairs_are_unlearnt_without_a_search(kind: str, planted: Planted, tmp_path: Path) -> None:
    data = planted.data()
    data.preprocessing = UBT("small:nano-32").preprocessing
    data.setup("fit")
    known, file = sorted(data.poisoned_keys)[:20], tmp_path / "given"
    other = next(key for key in data.keys_saying("banana") if key not in known)
    rows = [f"{key},poisoned" for key in known] + [f"{other},suspicious"]
    file.write_text("\n".join(known) if kind == "text" else "\n".join(["key,decision", *rows]))
    ubt, seen = planted.ubt(given=str(file), **SHORT), Phases()
    before = model = weights(ubt)
    phased_trainer(tmp_path, seen).fit(ubt, planted.data())
    assert seen.order == ["score", "repair"]
    findings = ubt.findings
    assert findings.keys_of(findings.having(POISONED)) == known
    assert findings.having(BENIGN).size == len(findings.keys) - len(known)
    assert findings.compromised_words == [TARGET]
    assert not set(known) & seen.keys["repair"]
    assert ubt.alarm
    assert same(before, weights(ubt)) < set(model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("\n\n", "names no keys"),
        ("key\n", "names no keys"),
        ("nobody", "names no pair of data"),
    ],
)
def test_a_file_that_names_no_pair_is_reported(
    content: str | None, message: str, planted: Planted, tmp_path: Path
) -> None:
    file = tmp_path / "given"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserMistake, match=message):
        phased_trainer(tmp_path).fit(planted.ubt(given=str(file), **SHORT), planted.data())


def test_baked_shards_without_a_plan_give_the_same_result(planted: Planted, tmp_path: Path) -> None:
    assert planted.plan is not None
    poison(str(planted.folder / "train"), str(tmp_path / "baked"), planted.plan, image_size=32)
    baked = ImageTextDataModule(str(tmp_path / "baked"), batch_size=16, eval_batch_size=160, num_workers=0)
    ends = []
    for data in (planted.data(), baked):
        ubt = planted.ubt(**(SHORT | {"probe": ANY_WORD}))
        phased_trainer(tmp_path / "run").fit(ubt, data)
        ends.append({"findings": ubt.findings.state_dict(), "weights": weights(ubt)})
    assert ends[0]["findings"]["compromised"]
    assert_same_state(*ends)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"evidence": []}, r"model\.evidence is empty: name at least one, such as DetailMargin"),
        ({"evidence": [DetailMargin(), DetailMargin()]}, r"model\.evidence has two of one name: DetailMargin"),
        ({"rounds": 0}, r"model\.rounds is 0, not at least 1"),
        ({"sampled_pairs": 0}, r"model\.sampled_pairs is 0, not at least 1"),
        ({"min_word_share": 0.0}, r"model\.min_word_share is 0\.0, not above 0"),
        ({"min_word_share": 1.5}, r"model\.min_word_share is 1\.5"),
    ],
)
def test_parameters_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        UBT("small:nano-32", **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 3}, r"set trainer\.max_epochs to -1"),
        ({"reload_dataloaders_every_n_epochs": 0}, r"set trainer\.reload_dataloaders_every_n_epochs to 1"),
    ],
)
def test_a_trainer_that_cannot_run_the_phases_is_reported(
    options: dict[str, Any], message: str, planted: Planted, tmp_path: Path
) -> None:
    with pytest.raises(UserMistake, match=message):
        phased_trainer(tmp_path, **options).fit(planted.ubt(**SHORT), planted.data())


def test_where_captions_hang_on_no_word_the_run_says_so(planted: Planted, tmp_path: Path) -> None:
    ubt = planted.ubt(**(SHORT | {"min_word_share": 1.0}))
    with pytest.raises(UserMistake, match="finds no word on which similarities depend"):
        phased_trainer(tmp_path).fit(ubt, planted.data())


def test_where_too_few_pairs_can_be_held_the_run_says_so(planted: Planted, tmp_path: Path) -> None:
    ubt = planted.ubt(**(SHORT | {"probe": ProbeOptions(epochs=1, steps=2, doubtful_share=0.999)}))
    with pytest.raises(UserMistake, match=r"pairs can be held where they are, too few to fill a batch of 636"):
        phased_trainer(tmp_path).fit(ubt, planted.data(batch_size=636))
