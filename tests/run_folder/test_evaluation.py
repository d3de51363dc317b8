"""The file with the sample of an evaluation, which may come from anywhere."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from untrigger.contracts import Attack, UserMistake
from untrigger.run_folder.evaluation import Evaluation, read_evaluation, write_evaluation


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
    write_evaluation(evaluation(), tmp_path / "new")
    found = read_evaluation(tmp_path / "new")
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
        lambda path: write_evaluation(evaluation(label=np.array([0, 7])), path.parent),
        lambda path: write_evaluation(evaluation(key_hash=np.array([1], dtype=np.uint64)), path.parent),
        lambda path: write_evaluation(evaluation(features=np.zeros((3, 3), dtype=np.float16)), path.parent),
        lambda path: write_evaluation(evaluation(features=np.zeros((2, 3))), path.parent),
        lambda path: write_evaluation(evaluation(attacks=[Attack("x", 2)]), path.parent),
    ],
)
def test_file_that_is_no_evaluation_is_one_clear_line(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "evaluation.npz"
    write(path)
    with pytest.raises(UserMistake, match=r"evaluation\.npz is not an evaluation") as mistake:
        read_evaluation(tmp_path)
    assert "\n" not in str(mistake.value)


def test_no_file_is_no_evaluation(tmp_path: Path) -> None:
    assert read_evaluation(tmp_path) is None
