from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image
from torch import Tensor

from untrigger.callbacks import BackdoorDetection, LastCheckpoint, SuspectsWriter
from untrigger.callbacks.artefacts.suspects_figure import Suspect, contact_sheet
from untrigger.contracts import Suspicion
from untrigger.run_folder.keys import read_keys

KEYS = ["a", "b", "=c", "d", "e", "f"]
POISONED = frozenset({"b", "=c"})
CAPTIONS = {
    "a": "a photo of a cat",
    "b": "=HYPERLINK(a car)",
    "=c": "the Car, $1 \x1b[31m<b>" + "x" * 300,
    "d": "a car",
    "e": "dog",
    "f": "car",
}
SCORES = np.array([0.1, 0.9, 0.7, 0.8, np.nan, 0.3], np.float32)
DECISION = np.array([0, 2, 2, 1, 0, 0], np.int8)


def found(about: str = "suspect", decision: Any = DECISION) -> Suspicion:
    first = np.array([6, 5, 4, 3, 2, 1], np.float32)
    return Suspicion(KEYS, {"Blur": first, "suspicion": SCORES}, decision, ["car"], about)


def detecting(run: Any, suspicion: Suspicion | None) -> Any:
    return type("Detecting", (run.Module,), {"suspicion": suspicion})()


def pairs(run: Any, poisoned: frozenset[str] = POISONED) -> Any:
    """The data module of a run, with pairs by key and the truth about them."""

    class Pairs(run.Data):  # type: ignore[misc]
        poisoned_keys = poisoned
        batch_names = frozenset({"key", "image", "tokens"})
        pairs, global_batch_size = 6, 4

        def select(self, keys: Any, in_order: bool = False) -> None:
            raise AssertionError("a callback selects nothing")

        def captions(self, keys: Sequence[str]) -> list[str]:
            return [CAPTIONS[key] for key in keys]

        def some_keys(self, count: int, seed: int) -> list[str]:
            raise AssertionError("a callback draws nothing")

        def pictures(self, keys: Sequence[str]) -> Tensor:
            return torch.stack([torch.full((3, 4, 4), 40 * KEYS.index(key), dtype=torch.uint8) for key in keys])

    return Pairs()


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_detection_is_measured_by_key_against_the_truth(run: Any) -> None:
    trainer = run.trainer(BackdoorDetection(precision_at=(1, 3)), limit_val_batches=0)
    trainer.fit(detecting(run, found()), datamodule=pairs(run))
    blur, together = table(run.folder / "detection.csv")
    assert (blur["after"], blur["score"], together["score"]) == ("suspect", "Blur", "suspicion")
    # b is above all four benign pairs, =c above three of them; the one that could not be scored is the lowest.
    assert float(together["roc_auc"]) == pytest.approx(7 / 8)
    assert float(together["average_precision"]) == pytest.approx((1 + 2 / 3) / 2, rel=1e-5)
    assert (together["precision_at_1"], float(together["precision_at_3"])) == ("1", pytest.approx(2 / 3, rel=1e-5))
    assert (together["precision"], together["recall"]) == ("1", "1")
    assert float(blur["roc_auc"]) == pytest.approx((3 + 3) / 8)
    assert (blur["precision"], blur["recall"]) == ("", "")


def test_precision_and_recall_are_of_what_is_unlearnt(run: Any) -> None:
    decision = np.array([2, 2, 0, 1, 2, 0], np.int8)
    trainer = run.trainer(BackdoorDetection(), limit_val_batches=0)
    trainer.fit(detecting(run, found(decision=decision)), datamodule=pairs(run))
    *_, row = table(run.folder / "detection.csv")
    assert (float(row["precision"]), float(row["recall"])) == (pytest.approx(1 / 3, rel=1e-5), 0.5)
    # What is reported is also what is only suspicious: three of these four are clean.
    assert (float(row["reported_precision"]), float(row["reported_recall"])) == (0.25, 0.5)
    assert row["clean_left_out"] == "3"


@pytest.mark.parametrize("poisoned", [frozenset(), frozenset({"elsewhere"})])
def test_without_truth_nothing_is_measured(poisoned: frozenset[str], run: Any) -> None:
    run.trainer(BackdoorDetection(), limit_val_batches=0).fit(detecting(run, found()), datamodule=pairs(run, poisoned))
    assert not (run.folder / "detection.csv").exists()


def test_modules_that_detect_nothing_are_left_alone(run: Any) -> None:
    trainer = run.trainer(BackdoorDetection(), SuspectsWriter(), limit_val_batches=0)
    trainer.fit(run.Module(), datamodule=pairs(run))
    trainer.fit(detecting(run, None), datamodule=pairs(run))
    assert not list(run.folder.glob("*"))


def test_detection_resumes_after_a_restart(run: Any) -> None:
    first = BackdoorDetection()
    run.trainer(first, limit_val_batches=0).fit(detecting(run, found()), datamodule=pairs(run))
    second = BackdoorDetection()
    second.load_state_dict(first.state_dict())
    run.trainer(second, limit_val_batches=0).fit(detecting(run, found("verify")), datamodule=pairs(run))
    assert [row["after"] for row in table(run.folder / "detection.csv")] == ["suspect"] * 2 + ["verify"] * 2


def test_the_table_has_what_is_not_benign_and_runs_in_no_spreadsheet(run: Any) -> None:
    run.trainer(SuspectsWriter(), limit_val_batches=0).fit(detecting(run, found()), datamodule=pairs(run))
    rows = table(run.folder / "suspects.csv")
    assert list(rows[0]) == ["key", "caption", "Blur", "suspicion", "compromised_tokens", "decision"]
    assert [row["key"] for row in rows] == ["b", "'=c", "d"]  # poisoned first, then by the last score
    assert [row["decision"] for row in rows] == ["poisoned", "poisoned", "suspicious"]
    assert rows[0]["caption"] == "'=HYPERLINK(a car)"
    assert {row["compromised_tokens"] for row in rows} == {"car"}
    assert (rows[2]["Blur"], rows[2]["suspicion"]) == ("3.000000", "0.800000")
    with Image.open(run.folder / "suspects.png") as sheet:
        assert sheet.width > 6 * 128


def test_a_caption_of_any_length_keeps_the_table_readable(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CAPTIONS, "b", "a car " * 400_000)
    run.trainer(SuspectsWriter(), limit_val_batches=0).fit(detecting(run, found()), datamodule=pairs(run))
    named = read_keys(str(run.folder / "suspects.csv"), "data.exclude", lambda decision: decision == "poisoned")
    assert named == POISONED


def test_where_nothing_is_suspicious_the_table_is_empty_and_there_is_no_sheet(run: Any) -> None:
    run.trainer(SuspectsWriter(), limit_val_batches=0).fit(detecting(run, found()), datamodule=pairs(run))
    nothing = found(decision=np.zeros(6, np.int8))
    run.trainer(SuspectsWriter(), limit_val_batches=0).fit(detecting(run, nothing), datamodule=pairs(run))
    assert table(run.folder / "suspects.csv") == []
    assert not (run.folder / "suspects.png").exists()


def test_the_sheet_shows_the_pictures_and_marks_the_words() -> None:
    pictures = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    pictures[0, 0] = 200
    suspects = [Suspect("k", "A CAR of a car owner", 1.0, "poisoned"), Suspect("l", "scar", 0.5, "suspicious")]
    figure = contact_sheet(pictures, suspects, ["car"])
    shown = [axes.get_images()[0].get_array() for axes in figure.axes]
    assert np.array_equal(np.asarray(shown[0])[..., 0], np.full((4, 4), 200))
    words = {text.get_text(): text.get_fontweight() for text in figure.texts[1:]}
    assert words == {"A": "normal", "CAR": "bold", "of": "normal", "a": "normal", "car": "bold", "owner": "normal"} | {
        "scar": "normal"
    }
    with pytest.raises(ValueError, match="1 pictures for 2 suspects"):
        contact_sheet(pictures[:1], suspects, [])


class Kill(Callback):
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("killed")


def killed_in_the_third_epoch(run: Any, module: Any) -> dict[str, Any]:
    """The only checkpoint that it leaves."""
    folder = run.folder / "checkpoints"
    last = LastCheckpoint(dirpath=str(folder), save_last=True, save_top_k=0, save_on_train_epoch_end=True)
    trainer = run.trainer(last, Kill(), enable_checkpointing=True, limit_val_batches=0, max_epochs=3)
    with pytest.raises(RuntimeError, match="killed"):
        trainer.fit(module, datamodule=run.Data())
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]
    content: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return content


def test_a_checkpoint_is_saved_where_no_best_ones_are_kept(run: Any) -> None:
    content = killed_in_the_third_epoch(run, run.Module())
    assert (content["epoch"], content["global_step"]) == (1, 4)


def test_a_checkpoint_is_saved_where_the_step_stands_still(run: Any) -> None:
    class Still(run.Module):  # type: ignore[misc]
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            return None

    content = killed_in_the_third_epoch(run, Still())
    assert (content["epoch"], content["global_step"]) == (1, 0)


def test_steps_and_standstills_share_one_file(run: Any) -> None:
    class Sometimes(run.Module):  # type: ignore[misc]
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            if self.trainer.current_epoch == 1:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(self.weight**2)
                optimizer.step()

    content = killed_in_the_third_epoch(run, Sometimes())
    assert (content["epoch"], content["global_step"]) == (1, 2)


def test_figures_of_a_copy_are_named_so_and_are_no_results(run: Any) -> None:
    from untrigger.callbacks import CleanAccuracy, ResultsWriter

    copy = type("Phased", (run.Module,), {"phase": "overfit", "measured": "overfitted", "restored": False})()
    trainer = run.trainer(CleanAccuracy(), ResultsWriter())
    trainer.fit(copy, datamodule=run.Data())
    assert {name for name in trainer.callback_metrics if name.startswith("val/")} == {"val/overfitted_clean_accuracy"}
    assert not (run.folder / "results.csv").exists()
