from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from planted import ENCODER, POISONED, Planted, figures, phased_trainer, same, weights

from untrigger.callbacks import SuspectsWriter
from untrigger.contracts import CLIPModule, DetectingModule, UserMistake
from untrigger.lightning_modules import ABL
from untrigger.lightning_modules.encoders import build_encoder


def module(planted: Planted | None = None, **arguments: Any) -> ABL:
    torch.set_num_threads(1)
    seed_everything(0)
    start = {} if planted is None else {"init_from": str(planted.model)}
    settings = {"isolation_epochs": 2, "isolation_lr": 2e-3, "isolated_share": 0.05, "unlearn_epochs": 4, "lr": 5e-4}
    return ABL(ENCODER, **(settings | start | arguments))


class Notes(Callback):
    """What each step was given and made of it."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.keys: list[list[str]] = []
        self.losses: list[dict[str, float]] = []
        self.began: list[dict[str, torch.Tensor]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ABL)
        self.began.append(weights(pl_module))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ABL)
        assert pl_module.running is not None
        self.phases.append(pl_module.running.name)
        self.keys.append(list(batch["key"]))
        self.losses.append({name: float(part) for name, part in pl_module.losses.items()})


def isolated_as(clip: ABL, planted: Planted, poisoned: int) -> None:
    """Let the isolation end with some poisoned pairs and as many others as a twentieth of the data has room for."""
    data = planted.data()
    data.preprocessing = clip.preprocessing
    data.setup("fit")
    bad = sorted(data.poisoned_keys)
    good = [key for key in data.some_keys(640, 0) if key not in data.poisoned_keys]
    first = [*bad[:poisoned], *good[: 32 - poisoned]]
    losses = {key: 1.0 + (key not in first) for key in (*bad, *good)}
    clip.isolate(list(losses), np.array(list(losses.values()), np.float32))
    assert clip.isolated == frozenset(first)


def test_it_keeps_the_contracts() -> None:
    clip = module()
    assert isinstance(clip, CLIPModule)
    assert isinstance(clip, DetectingModule)
    assert (clip.defence, clip.suspicion) == ("ABL", None)


def test_a_pair_is_ranked_by_its_mean_loss_over_all_that_was_seen_of_it() -> None:
    clip = module(isolated_share=0.25)
    seen = [("a", 1.0), ("b", 0.1), ("c", 0.5), ("d", 3.0), ("a", 2.0), ("b", 2.0), ("c", 0.7)]
    clip.isolate([key for key, _ in seen], np.array([loss for _, loss in seen], np.float32))
    assert clip.keys == ["a", "b", "c", "d"]
    assert clip.mean_loss.tolist() == pytest.approx([1.5, 1.05, 0.6, 3.0])
    assert clip.isolated == {"c"}
    assert clip.suspicion is not None
    assert clip.suspicion.decision.tolist() == [0, 0, 2, 0]
    assert clip.suspicion.scores["learnt_first"].argmax() == 2


@pytest.fixture(scope="module")
def run(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> tuple[ABL, Notes, Path]:
    """A run as a user starts it."""
    root = tmp_path_factory.mktemp("run")
    clip, notes = module(planted), Notes()
    phased_trainer(root, notes, SuspectsWriter()).fit(clip, planted.data())
    return clip, notes, root


def test_a_fresh_copy_is_trained_on_everything_and_the_poisoned_model_unlearns(
    run: tuple[ABL, Notes, Path], planted: Planted
) -> None:
    clip, notes, _ = run
    assert notes.phases == ["isolate"] * 80 + ["unlearn"] * 4 * 8
    assert len({key for keys in notes.keys[:40] for key in keys}) == 640
    torch.manual_seed(0)
    fresh, poisoned = build_encoder(ENCODER).state_dict(), weights(module(planted))
    assert same(notes.began[0], fresh) == set(fresh)
    assert same(notes.began[2], poisoned) == set(poisoned)
    moved = set(poisoned) - same(weights(clip), poisoned)
    assert moved == {f"visual.{name}" for name, _ in clip.encoder.image_tower.named_parameters()}


def test_each_epoch_of_the_unlearning_has_all_isolated_pairs_and_thrice_as_many_others(
    run: tuple[ABL, Notes, Path],
) -> None:
    clip, notes, _ = run
    assert len(clip.isolated) == 32
    epochs = [[key for keys in notes.keys[start : start + 8] for key in keys] for start in range(80, 112, 8)]
    for keys in epochs:
        assert len(keys) == len(set(keys)) == 128
        assert clip.isolated <= set(keys)
    assert len({frozenset(keys) for keys in epochs}) == 4


def test_what_it_isolated_is_left_in_the_run_folder(run: tuple[ABL, Notes, Path]) -> None:
    clip, _, root = run
    with (root / "suspects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["key"] for row in rows} == clip.isolated
    assert {row["decision"] for row in rows} == {"poisoned"}
    scores = [float(row["learnt_first"]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_a_pair_in_the_trap_is_pushed_up_again() -> None:
    clip = module()
    phase: Any = clip.phases["isolate"]
    clip.log_parts = lambda **_: None  # type: ignore[method-assign]
    data: Any = type("Data", (), {"global_batch_size": 4})
    type(clip).data = property(lambda _: data)  # type: ignore[method-assign]
    try:
        images, tokens = torch.randn(4, 3, 32, 32), clip.preprocessing.tokenize(["a", "red star", "the ring", "no"])
        batch: Any = {"key": list("abcd"), "image": images, "tokens": tokens}
        losses = phase.pair_losses(*clip(batch), clip.inverse_temperature).detach()
        phase.gamma = float(losses.sort().values[1:3].mean()) / clip.chance
        below = losses < losses.median() + 1e-6
        assert below.sum() == 2
        expected = (losses[~below].sum() - losses[below].sum()) / 4
        torch.testing.assert_close(phase.step(clip, batch, 0).detach(), expected)
    finally:
        del type(clip).data


def test_poison_that_was_isolated_is_unlearnt_and_the_accuracy_is_kept(planted: Planted, tmp_path: Path) -> None:
    clip = module(planted)
    before = figures(clip, planted, tmp_path)
    clip.phases.pop("isolate")
    isolated_as(clip, planted, 32)
    phased_trainer(tmp_path).fit(clip, planted.data())
    accuracy, success = figures(clip, planted, tmp_path)
    assert before[1] > 0.5
    assert success < 0.2
    assert accuracy > before[0] - 0.05


def test_a_run_that_was_resumed_in_either_phase_ends_where_the_other_does(planted: Planted, tmp_path: Path) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step in (3, 82):
                trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    whole = module(planted)
    phased_trainer(tmp_path, Save()).fit(whole, planted.data())
    for step in (3, 82):
        again = module(planted)
        path = tmp_path / f"{step}.ckpt"
        phased_trainer(tmp_path).fit(again, planted.data(), ckpt_path=path, weights_only=True)
        assert again.isolated == whole.isolated
        assert same(weights(again), weights(whole)) == set(weights(whole))


def test_the_isolated_share_is_rounded_and_never_nothing() -> None:
    clip = module(isolated_share=0.01)
    clip.isolate([str(number) for number in range(POISONED)], np.arange(POISONED, dtype=np.float32))
    assert clip.isolated == {"0"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 0.0}, r"model\.gamma is 0\.0, not above 0 and at most 1"),
        ({"isolated_share": 1.5}, r"model\.isolated_share is 1\.5"),
        ({"isolation_epochs": 0}, r"model\.isolation_epochs is 0, not at least 1"),
        ({"retained_per_isolated": 0}, r"model\.retained_per_isolated is 0, not at least 1"),
        ({"ceiling": -1.0}, r"model\.ceiling is -1\.0, not at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        module(**arguments)


def test_too_few_pairs_for_a_batch_are_reported(planted: Planted, tmp_path: Path) -> None:
    clip = module(planted, isolated_share=0.002, retained_per_isolated=1)
    with pytest.raises(UserMistake, match="ABL: 1 isolated pairs and 1 others do not fill a batch of 16"):
        phased_trainer(tmp_path, limit_train_batches=1).fit(clip, planted.data())
