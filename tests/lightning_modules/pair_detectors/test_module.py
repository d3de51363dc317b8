from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from planted import ENCODER, Planted, phased_trainer, same, weights

from untrigger.callbacks import BackdoorDetection
from untrigger.contracts import CLIPModule, DetectingModule, UserMistake
from untrigger.lightning_modules import DetailMargin, OverfittedSimilarity, PairDetectors
from untrigger.lightning_modules.detection import local_density, spectral_signatures
from untrigger.lightning_modules.pair_detectors import LowSimilarity

COLUMNS = [
    "learnt_first",
    "low_similarity",
    "gaussian_mixture",
    "k_distance",
    "slof",
    "dao",
    "spectral_signatures",
    "activation_clustering",
    "DetailMargin-0.03125",
]


def module(planted: Planted | None = None, **arguments: Any) -> PairDetectors:
    torch.set_num_threads(1)
    seed_everything(0)
    start = {} if planted is None else {"init_from": str(planted.model)}
    settings: dict[str, Any] = {"isolation_epochs": 1, "isolation_lr": 2e-3, "evidence": [DetailMargin()]}
    settings |= {"min_word_share": 0.04, "sampled_pairs": 128}
    return PairDetectors(ENCODER, **(settings | start | arguments))


@pytest.fixture(scope="module")
def run(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> tuple[PairDetectors, Path]:
    """A run as a user starts it."""
    root = tmp_path_factory.mktemp("run")
    clip = module(planted)
    phased_trainer(root, BackdoorDetection()).fit(clip, planted.data())
    return clip, root


def test_it_keeps_the_contracts() -> None:
    clip = module()
    assert isinstance(clip, CLIPModule)
    assert isinstance(clip, DetectingModule)
    assert (clip.defence, clip.suspicion) == ("none", None)


def test_every_detector_ranks_every_pair_and_the_model_stays_as_it_is(
    run: tuple[PairDetectors, Path], planted: Planted
) -> None:
    clip, _ = run
    assert list(clip.scores) == COLUMNS
    assert len(set(clip.keys)) == 640
    assert all(np.isfinite(score).all() and score.shape == (640,) for score in clip.scores.values())
    before = weights(module(planted))
    assert same(weights(clip), before) == set(before)


def test_scores_are_those_of_the_features_of_the_pictures_as_they_are(
    run: tuple[PairDetectors, Path], planted: Planted
) -> None:
    clip, _ = run
    data = planted.data()
    data.preprocessing = clip.preprocessing
    data.setup("fit")
    with torch.no_grad():
        clip.eval()
        features = clip.encode_image(clip.normalised(data.pictures(clip.keys)))
        texts = clip.encode_text(clip.preprocessing.tokenize(data.captions(clip.keys)))
    np.testing.assert_allclose(clip.scores["low_similarity"], -(features * texts).sum(dim=1).numpy(), atol=1e-4)
    density = local_density(features, 16, 1024, 0)
    np.testing.assert_allclose(clip.scores["k_distance"], density.k_distance.numpy(), atol=1e-3)
    tomato = torch.tensor([index for index, caption in enumerate(data.captions(clip.keys)) if "tomato" in caption])
    alone = spectral_signatures(features, [tomato])[tomato]
    np.testing.assert_allclose(clip.scores["spectral_signatures"][tomato], alone, atol=1e-4)


def test_a_pair_counts_to_the_one_word_of_its_caption_that_its_picture_goes_with() -> None:
    clip = module(isolation_epochs=0, evidence=[])
    features = torch.nn.functional.normalize(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    word = torch.tensor([0] * 20 + [3] * 19 + [-1])
    similarity = np.linspace(0, 1, 40, dtype=np.float32)
    clip.rank([str(number) for number in range(40)], features, word, {"similarity": similarity})
    expected = spectral_signatures(features, [torch.arange(20), torch.arange(20, 39)])
    np.testing.assert_array_equal(clip.scores["spectral_signatures"], expected.numpy())
    assert np.isnan(clip.scores["spectral_signatures"][39])


def test_the_table_has_a_row_for_each_and_a_planted_backdoor_is_ranked_high(run: tuple[PairDetectors, Path]) -> None:
    _, root = run
    with (root / "detection.csv").open(newline="") as file:
        rows = {row["score"]: row for row in csv.DictReader(file)}
    assert list(rows) == COLUMNS
    assert all(0 <= float(row["roc_auc"]) <= 1 for row in rows.values())
    assert float(rows["spectral_signatures"]["roc_auc"]) > 0.8
    assert {row["after"] for row in rows.values()} == {"embed"}


def test_who_is_poisoned_changes_nothing(run: tuple[PairDetectors, Path], planted: Planted, tmp_path: Path) -> None:
    class Blind(Callback):
        def on_fit_start(self, trainer: Trainer, *_: Any) -> None:
            training: Any = trainer.datamodule._training  # type: ignore[attr-defined]
            training.poisoned_keys = lambda *_: pytest.fail("a detector asked which pairs are poisoned")

    clip = module(planted)
    phased_trainer(tmp_path, Blind()).fit(clip, planted.data())
    for name, score in run[0].scores.items():
        np.testing.assert_array_equal(clip.scores[name], score)


def test_without_the_copy_nothing_is_trained(planted: Planted, tmp_path: Path) -> None:
    clip = module(planted, isolation_epochs=0)
    trainer = phased_trainer(tmp_path)
    trainer.fit(clip, planted.data())
    assert list(clip.scores) == COLUMNS[1:]
    assert trainer.global_step == 0


def test_a_run_that_was_resumed_in_either_phase_has_the_same_scores(
    run: tuple[PairDetectors, Path], planted: Planted, tmp_path: Path
) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            batches = trainer.fit_loop.epoch_loop.batch_progress.total.ready  # type: ignore[attr-defined]
            if batches in (3, 43):
                trainer.save_checkpoint(tmp_path / f"{batches}.ckpt")

    phased_trainer(tmp_path, Save()).fit(module(planted), planted.data())
    for batches in (3, 43):
        again = module(planted)
        path = tmp_path / f"{batches}.ckpt"
        phased_trainer(tmp_path).fit(again, planted.data(), ckpt_path=path, weights_only=True)
        assert again.keys == run[0].keys
        for name, score in run[0].scores.items():
            np.testing.assert_array_equal(again.scores[name], score)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 0.0}, r"model\.gamma is 0\.0, not above 0 and at most 1"),
        ({"isolation_epochs": -1}, r"model\.isolation_epochs is -1, not at least 0"),
        ({"evidence": [OverfittedSimilarity()]}, "OverfittedSimilarity asks an overfitted copy"),
        ({"detectors": [LowSimilarity(), LowSimilarity()]}, "two scores with the name low_similarity"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        module(**arguments)
