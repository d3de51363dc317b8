from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from untrigger.callbacks import EvaluationSample
from untrigger.callbacks.evaluation_file import Evaluation, read_evaluation, write_evaluation
from untrigger.contracts import Attack, UserMistake

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
    found = read_evaluation(run.folder / "evaluation.npz")
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


def evaluation(**changes: Any) -> Evaluation:
    fields: dict[str, Any] = {
        "dataset": "written",
        "classnames": ["plane", "car"],
        "attacks": [Attack("../../x", 1)],
        "key_hash": np.array([1, 2], dtype=np.uint64),
        "label": np.array([0, 1]),
        "clean_similarity": None,
        "features": np.zeros((2, 3), dtype=np.float16),
        "triggered_similarity": {},
        "triggered_features": {"../../x": np.ones((2, 3), dtype=np.float16)},
    }
    return Evaluation(**(fields | changes))


def test_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_evaluation(evaluation(), tmp_path / "new" / "evaluation.npz")
    found = read_evaluation(tmp_path / "new" / "evaluation.npz")
    assert found is not None
    assert (found.attacks, found.label.tolist(), found.clean_similarity) == ([Attack("../../x", 1)], [0, 1], None)
    assert found.triggered_features["../../x"].tolist() == [[1, 1, 1], [1, 1, 1]]
    with zipfile.ZipFile(tmp_path / "new" / "evaluation.npz") as archive:
        assert not any("/" in name for name in archive.namelist())


def hostile(path: Path) -> None:
    np.savez(path, attacks=np.array([print], dtype=object))


def enormous(path: Path) -> None:
    # A terabyte, says its header; four bytes are there.
    header = "{'descr': '<f2', 'fortran_order': False, 'shape': (500000000000,), }".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "label.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"1234"
        )


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"no archive"),
        lambda path: path.write_bytes(b""),
        hostile,
        enormous,
        lambda path: np.savez(path, attacks=np.array(["a"])),
        lambda path: write_evaluation(evaluation(label=np.array([0, 7])), path),
        lambda path: write_evaluation(evaluation(key_hash=np.array([1], dtype=np.uint64)), path),
        lambda path: write_evaluation(evaluation(features=np.zeros((3, 3), dtype=np.float16)), path),
        lambda path: write_evaluation(evaluation(features=np.zeros((2, 3))), path),
        lambda path: write_evaluation(evaluation(attacks=[Attack("x", 2)]), path),
    ],
)
def test_file_that_is_no_evaluation_is_one_clear_line(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "evaluation.npz"
    write(path)
    with pytest.raises(UserMistake, match=r"evaluation\.npz is not an evaluation") as mistake:
        read_evaluation(path)
    assert "\n" not in str(mistake.value)


def test_no_file_is_no_evaluation(tmp_path: Path) -> None:
    assert read_evaluation(tmp_path / "evaluation.npz") is None
