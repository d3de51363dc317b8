from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from untrigger.callbacks import EvaluationSample
from untrigger.contracts import Attack, UserMistake
from untrigger.run_folder.evaluation import Evaluation, read_evaluation

# From the tables in conftest.py. The module's features are one-hot at the class it takes a picture for, so a clean
# picture's cosine with its own class is 1 where it is right; a triggered one's with the target (1) where it is fooled.
LABELS = [0, 0, 1, 1, 2, 2, 2]
CLEAN = [0, 1, 1, 0, 2, 2, 1]
UNDER_BADNET = [1, 1, 1, 0, 1, 2, 0]


def in_order_of_hashes(count: int = 7) -> list[int]:
    """The numbers of the test pictures, whose keys are "0" to "6"."""
    return sorted(range(7), key=lambda n: int.from_bytes(hashlib.blake2b(b"%d" % n, digest_size=8).digest(), "little"))[
        :count
    ]


def kept(run: Any) -> Evaluation:
    found = read_evaluation(run.folder)
    assert found is not None
    return found


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
@pytest.mark.parametrize("pictures", [3, 2000])
def test_sample_is_what_the_evaluation_saw_of_the_smallest_hashes(run: Any, command: str, pictures: int) -> None:
    getattr(run.trainer(EvaluationSample(pictures)), command)(run.ShowingModule(), datamodule=run.Data())
    found, numbers = kept(run), in_order_of_hashes(pictures)
    assert (found.dataset, found.classnames) == ("written", ["plane", "car", "bird"])
    assert found.attacks == [Attack("BadNet", 1)]
    assert found.label.tolist() == [LABELS[n] for n in numbers]
    assert found.features is not None
    assert found.features.argmax(axis=1).tolist() == [CLEAN[n] for n in numbers]
    assert found.triggered_features["BadNet"].argmax(axis=1).tolist() == [UNDER_BADNET[n] for n in numbers]
    assert found.clean_similarity is not None
    assert found.clean_similarity.tolist() == [float(CLEAN[n] == LABELS[n]) for n in numbers]
    assert found.triggered_similarity["BadNet"].tolist() == [float(UNDER_BADNET[n] == 1) for n in numbers]
    assert {found.features.dtype, found.clean_similarity.dtype} == {np.dtype(np.float16)}
    assert [path.name for path in run.folder.iterdir()] == ["evaluation.npz"]


def test_module_that_returns_no_features_leaves_what_there_is(run: Any) -> None:
    run.trainer(EvaluationSample()).validate(run.Module(), datamodule=run.Data())
    found = kept(run)
    assert found.label.tolist() == [LABELS[n] for n in in_order_of_hashes()]
    assert found.features is None
    assert found.clean_similarity is None
    assert found.triggered_features == found.triggered_similarity == {}


def test_each_attack_is_kept_under_its_name(run: Any) -> None:
    run.trainer(EvaluationSample()).validate(run.ShowingModule(), datamodule=run.Data(run.badnet | run.second))
    found = kept(run)
    assert list(found.triggered_features) == list(found.triggered_similarity) == ["BadNet", "BadNet-2"]
    assert found.triggered_similarity["BadNet-2"].sum() == 4  # four pictures become birds


class _Worse(Callback):
    """Takes every picture for a plane after the first epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            logits = pl_module.logits
            pl_module.logits = lambda images: logits(images * 0 - 2)


def test_the_last_validation_of_a_fit_counts(run: Any) -> None:
    run.trainer(EvaluationSample(), _Worse(), max_epochs=2).fit(run.ShowingModule(), datamodule=run.Data())
    found = kept(run)
    assert found.features is not None
    assert len(found.label) == 7
    assert set(found.features.argmax(axis=1).tolist()) == {0}


@pytest.mark.parametrize(
    "options",
    [
        {"fast_dev_run": True},
        {"max_epochs": 3, "check_val_every_n_epoch": 2},
        {"max_epochs": 0, "num_sanity_val_steps": -1},
    ],
)
def test_nothing_is_written_where_the_last_model_was_not_measured(run: Any, options: dict[str, Any]) -> None:
    run.trainer(EvaluationSample(), **options).fit(run.ShowingModule(), datamodule=run.Data())
    assert not (run.folder / "evaluation.npz").exists()


def test_no_pictures_no_file(run: Any) -> None:
    run.trainer(EvaluationSample(0)).validate(run.ShowingModule(), datamodule=run.Data())
    assert not (run.folder / "evaluation.npz").exists()
    with pytest.raises(UserMistake, match="at least 0"):
        EvaluationSample(-1)
