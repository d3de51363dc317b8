from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from planted import TARGET, Planted, assert_same_state, phased_trainer, same, weights
from torch import Tensor, nn

from untrigger.callbacks import AttackSuccessRate, CleanAccuracy
from untrigger.contracts import CLIPModule, DetectingModule, PhasedModule, UserMistake
from untrigger.lightning_modules import UBT
from untrigger.lightning_modules.ubt import DetailMargin, FlipFragility, ProbeOptions
from untrigger.lightning_modules.ubt.findings import BENIGN, POISONED, Turn
from untrigger.lightning_modules.ubt.probe import Probe
from untrigger.lightning_modules.ubt.verdict import Judgement
from untrigger.lightning_modules.ubt.verify import Verify, Witness


def model_of(planted: Planted) -> dict[str, Tensor]:
    tensors = torch.load(planted.model, weights_only=True)["state_dict"]
    return {name.removeprefix("encoder."): tensor for name, tensor in tensors.items()}


MOMENTS = [(0, "last"), (2, "first"), (3, "first"), (3, "last"), (4, "first"), (5, "last"), (7, "first")]
"""In the score, the probe (1, 2), the verification (3), the repair (4, 5) and the second probe (7, 8)."""


class Diary(Callback):
    """Notes the phase and the keys of each epoch, the batch norms' modes, and the weights that a phase begins with."""

    def __init__(self) -> None:
        self.epochs: list[tuple[str, list[str]]] = []
        self.began: list[tuple[str, dict[str, Tensor]]] = []
        self.modes: dict[str, set[bool]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(pl_module, UBT)
        assert pl_module.running is not None
        name = pl_module.running.name
        if not batch_idx or not self.epochs:
            self.epochs.append((name, []))
            if pl_module.phase.split()[-1].startswith(("1/", name.split()[-1])):
                self.began.append((name, weights(pl_module)))
        self.epochs[-1][1].extend(batch["key"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, UBT)
        norms = {part.training for part in pl_module.encoder.modules() if isinstance(part, nn.BatchNorm2d)}
        self.modes.setdefault(self.epochs[-1][0], set()).update(norms)

    @property
    def phases(self) -> list[str]:
        return [name for name, _ in groupby(name for name, _ in self.epochs)]


class Moments(Checkpoint):
    """Writes a checkpoint behind some batches, by epoch and by ``first`` or ``last``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, epoch: int, batch: str) -> Path:
        return self.folder / f"{epoch}-{batch}.ckpt"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (moment := (trainer.current_epoch, "last" if trainer.is_last_batch else "first")) in MOMENTS:
            path = self.path(*moment)
            if not path.exists():
                trainer.save_checkpoint(path)


class Whole:
    """A run from its beginning to its end."""

    def __init__(self, planted: Planted, root: Path) -> None:
        self.ubt, self.diary, self.root, data = planted.ubt(), Diary(), root, planted.data()
        self.moments = Moments(root)
        measures = (CleanAccuracy(), AttackSuccessRate())
        run = phased_trainer(root, self.diary, *measures, self.moments, limit_val_batches=1.0)
        run.validate(self.ubt, data, verbose=False)
        self.before = {name: float(value) for name, value in run.callback_metrics.items()}
        run.fit(self.ubt, data)
        run.save_checkpoint(root / "last.ckpt")
        run.validate(self.ubt, data, verbose=False)
        self.after = {name: float(value) for name, value in run.callback_metrics.items()}
        self.poisoned = data.poisoned_keys


@pytest.fixture(scope="module")
def whole(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(planted, tmp_path_factory.mktemp("whole"))


def test_it_keeps_the_contracts() -> None:
    ubt = UBT("small:nano-32")
    assert isinstance(ubt, CLIPModule)
    assert isinstance(ubt, PhasedModule)
    assert isinstance(ubt, DetectingModule)
    assert (ubt.defence, ubt.phase, ubt.measured, ubt.suspicion, ubt.alarm) == ("UBT", "score", "", None, None)
    assert not {"evidence", "probe", "repair", "overfit"} & set(ubt.hparams)


def test_a_planted_backdoor_is_found_and_unlearnt(whole: Whole) -> None:
    assert whole.before["val/attack_success_rate"] > 0.5
    assert whole.before["val/clean_accuracy"] > 0.95
    assert whole.ubt.alarm
    assert whole.ubt.findings.compromised_words == [TARGET]
    unlearnt = set(whole.ubt.findings.keys_of(whole.ubt.findings.having(POISONED)))
    assert len(unlearnt & whole.poisoned) > 0.9 * len(unlearnt)
    assert whole.after["val/attack_success_rate"] < 0.2
    assert whole.after["val/clean_accuracy"] > whole.before["val/clean_accuracy"] - 0.05
    assert whole.after["val/triggered_accuracy"] > whole.before["val/triggered_accuracy"] + 0.1


def test_after_the_repair_it_is_probed_again_until_nothing_is_found(whole: Whole) -> None:
    assert whole.diary.phases[:4] == ["score", "probe", "verify", "repair"]
    assert whole.diary.phases[4:7] == ["score", "probe", "verify"]
    assert whole.ubt.phase == "done"
    rounds = {verdict["round"] for verdict in whole.ubt.findings.verdicts}
    assert rounds == {0, 1}
    assert whole.ubt.suspicion is not None
    assert whole.ubt.suspicion.about.startswith("verify 2")


def test_the_image_tower_alone_moves_and_batch_norm_keeps_its_statistics(whole: Whole, planted: Planted) -> None:
    image = {f"visual.{name}" for name, _ in whole.ubt.encoder.image_tower.named_parameters()}
    initial, end = model_of(planted), weights(whole.ubt)
    assert set(initial) - same(initial, end) == image
    assert set(whole.diary.modes) == {"score", "probe", "verify", "repair"}
    assert all(modes == {False} for modes in whole.diary.modes.values())


def test_probe_and_repair_start_from_the_model_in_question(whole: Whole, planted: Planted) -> None:
    initial = model_of(planted)
    starts = [(name, same(initial, began) == set(initial)) for name, began in whole.diary.began]
    assert starts[:4] == [("score", True), ("probe", True), ("verify", False), ("repair", True)]
    again = whole.diary.began[4:7]
    assert [name for name, _ in again] == ["score", "probe", "verify"]
    repaired = again[0][1]
    assert same(repaired, again[1][1]) == set(repaired), "the second probe starts from the repaired model"
    assert same(initial, repaired) != set(initial)


def test_what_is_unlearnt_or_suspicious_is_never_held(whole: Whole) -> None:
    findings = whole.ubt.findings
    # Of the last repair, as each one is told what was found by then.
    visits = [list(visit) for name, visit in groupby(whole.diary.epochs, lambda each: each[0]) if name == "repair"]
    held = {key for _, keys in visits[-1] for key in keys}
    left_out = set(findings.keys_of(np.flatnonzero(findings.decision != BENIGN)))
    assert held
    assert left_out
    assert not held & left_out
    assert findings.having(POISONED).size > 5
    assert sorted(findings.keys) == sorted(next(keys for name, keys in whole.diary.epochs if name == "score"))
    assert (findings.poisoned_with >= 0).tolist() == (findings.decision == POISONED).tolist()


def test_a_finished_checkpoint_is_tensors_and_starts_another_model(whole: Whole) -> None:
    content = torch.load(whole.root / "last.ckpt", weights_only=True)
    assert content["phased"]["initial"] == {}
    assert content["ubt"]["answer"] is None
    end = weights(whole.ubt)
    again = UBT.load_from_checkpoint(whole.root / "last.ckpt", weights_only=True)
    assert same(end, weights(again)) == set(end)
    assert again.alarm
    started = UBT("small:nano-32", init_from=str(whole.root / "last.ckpt"))
    assert same(end, weights(started)) == set(end)


def test_a_clean_model_ends_as_it_began(never_planted: Planted, tmp_path: Path) -> None:
    ubt, diary = never_planted.ubt(), Diary()
    phased_trainer(tmp_path, diary).fit(ubt, never_planted.data())
    assert diary.phases[:3] == ["score", "probe", "verify"]
    assert "repair" not in diary.phases
    assert ubt.alarm is False
    initial = model_of(never_planted)
    assert same(initial, weights(ubt)) == set(initial)
    assert ubt.suspicion is not None
    assert not ubt.suspicion.decision.any()
    assert ubt.findings.compromised_words == []
    assert not any(verdict["found"] for verdict in ubt.findings.verdicts)


def test_words_with_fragile_suspects_are_probed_by_themselves_and_then_gently_those_that_stood_out(
    planted: Planted, never_planted: Planted, tmp_path: Path
) -> None:
    nothing_is_found = ProbeOptions(epochs=1, steps=2, significance=1e-300)
    for plant, expected in ((planted, [TARGET]), (never_planted, [])):
        ubt, diary = plant.ubt(probe=nothing_is_found), Diary()
        phased_trainer(tmp_path / str(len(expected)), diary).fit(ubt, plant.data())
        assert diary.phases == ["score", "probe", "verify"] + ["probe", "verify"] * (len(expected) + 1)
        judged = [verdict["word"] for verdict in ubt.findings.verdicts][len(ubt.findings.words) :]
        assert judged[: len(expected)] == expected
        assert 1 <= len(set(judged[len(expected) :])) == len(judged[len(expected) :])
        assert not ubt.alarm


def test_gently_probed_a_word_is_certain_at_a_larger_p_but_has_to_go_to_more_words(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, said = Verify.end, []

    def judged_in_several_ways(verify: Verify, ubt: UBT) -> str | None:
        asked, witness, chosen = verify.asked, verify.witness, verify.probe.chosen(ubt.findings).judged
        following = end(verify, ubt)
        if not said:
            turn = ubt.findings.turn
            (p,) = (each["p"] for each in ubt.findings.verdicts if each["word"] == TARGET)
            for gently, least in ((False, 2.0), (True, 2.0)):
                ubt.findings.turn = Turn(gently=gently)
                verify.asked, verify.witness = Judgement(0.05, 0.0, least), Witness(1.0, p / 10)
                verdicts = {ubt.findings.words.spelt[each.word]: each for each in verify._judged(ubt, chosen)}
                said.append((gently, verdicts[TARGET].found))
            ubt.findings.turn, verify.asked, verify.witness = turn, asked, witness
        return following

    monkeypatch.setattr(Verify, "end", judged_in_several_ways)
    probe = ProbeOptions(epochs=2, steps=15, lr=2e-3, significance=1e-300)
    phased_trainer(tmp_path).fit(planted.ubt(probe=probe), planted.data())
    assert said == [(False, False), (True, True)]


def test_the_rate_is_lower_where_words_are_probed_gently(planted: Planted) -> None:
    ubt = planted.ubt()
    probe = ubt.phases["probe"]
    usual = [probe.learning_rate(ubt, step) for step in range(4)]
    ubt.findings.turn.gently = True
    assert [probe.learning_rate(ubt, step) for step in range(4)] == pytest.approx([rate / 3 for rate in usual])


class Absent(DetailMargin):
    """As a piece of evidence that benign pictures may show too."""

    jointly = "absent"


def test_a_word_is_probed_by_absent_evidence_where_the_second_witness_speaks_against_it(
    planted: Planted, never_planted: Planted, tmp_path: Path
) -> None:
    for plant, expected in ((planted, [TARGET]), (never_planted, [])):
        ubt, diary = plant.ubt(evidence=[FlipFragility(), Absent()], rounds=1), Diary()
        phased_trainer(tmp_path / str(len(expected)), diary).fit(ubt, plant.data())
        words = len(ubt.findings.words)
        joint, closer = ubt.findings.verdicts[:words], ubt.findings.verdicts[words:]
        assert {verdict["evidence"] for verdict in joint} == {FlipFragility().name}
        absent = [verdict["word"] for verdict in closer if verdict["evidence"] == Absent().name]
        assert absent == expected
        assert ubt.findings.compromised_words == expected


def test_an_accused_word_is_probed_gently_when_its_fragile_suspects_were(planted: Planted, tmp_path: Path) -> None:
    nothing_is_found = ProbeOptions(epochs=2, steps=15, lr=2e-3, significance=1e-300)
    ubt = planted.ubt(probe=nothing_is_found, evidence=[DetailMargin(1 / 16), Absent()])
    phased_trainer(tmp_path).fit(ubt, planted.data())
    words = len(ubt.findings.words)
    (accused,) = (verdict for verdict in ubt.findings.verdicts[:words] if verdict["word"] == TARGET)
    assert accused["p"] <= 0.05
    fragile, *gently = ubt.findings.verdicts[words:]
    assert fragile["word"] == TARGET
    (again,) = (verdict for verdict in gently if verdict["word"] == TARGET)
    assert again["evidence"] == accused["evidence"]
    assert again["fall"] < fragile["fall"]


def test_evidence_that_would_be_absent_is_pushed_where_there_is_no_other(planted: Planted) -> None:
    phase = planted.ubt(evidence=[Absent()]).phases["probe"]
    assert isinstance(phase, Probe)
    assert phase.absent == phase.judged_only == []
    assert [piece.name for piece in phase.joint] == [Absent().name]


@pytest.mark.parametrize(("epoch", "batch"), MOMENTS)
def test_a_run_is_resumed_in_every_phase_to_the_same_bits(
    epoch: int, batch: str, whole: Whole, planted: Planted, tmp_path: Path
) -> None:
    rest, diary = planted.ubt(), Diary()
    start = whole.moments.path(epoch, batch)
    phased_trainer(tmp_path, diary).fit(rest, planted.data(), ckpt_path=start, weights_only=True)
    assert_same_state(rest.findings.state_dict(), whole.ubt.findings.state_dict())
    end = weights(whole.ubt)
    assert same(end, weights(rest)) == set(end)
    assert rest.alarm
    # Nothing is done twice.
    assert len(diary.epochs) == len(whole.diary.epochs) - epoch - (batch == "last")


def test_a_finished_run_that_is_continued_ends_at_once(whole: Whole, planted: Planted, tmp_path: Path) -> None:
    again, diary = planted.ubt(), Diary()
    phased_trainer(tmp_path, diary).fit(again, planted.data(), ckpt_path=whole.root / "last.ckpt", weights_only=True)
    assert diary.epochs == []
    end = weights(whole.ubt)
    assert same(end, weights(again)) == set(end)


def test_a_run_resumes_with_the_evidence_that_it_was_begun_with(whole: Whole, planted: Planted, tmp_path: Path) -> None:
    other = planted.ubt(evidence=[DetailMargin(1 / 16)])
    with pytest.raises(UserMistake, match=r"begun with other evidence than DetailMargin-0\.0625: begin it again"):
        phased_trainer(tmp_path).fit(other, planted.data(), ckpt_path=whole.moments.path(2, "first"), weights_only=True)
