"""``evaluation.npz``: what an evaluation saw of a sample of the test pictures."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts import Attack, UserMistake
from ..files.reading import check_ends, reason, shown
from ..files.writing import open_whole

EVALUATION = "evaluation.npz"
"""The name of the file."""

_MAX_BYTES = 2**30  # bytes, unpacked: a small archive may claim to hold more than the memory does
_MAX_PICTURES, _MAX_DIM = 100_000, 4096  # of a sample, and of an embedding


@dataclass(frozen=True)
class Evaluation:
    """A sample of N test pictures, as a model saw them. Cosines are float16, features too, of unit length.

    What the module's evaluation step did not return is None, or missing for that attack.
    """

    dataset: str
    """The name of the zero-shot set."""
    classnames: list[str]
    attacks: list[Attack]
    key_hash: NDArray[np.uint64]
    """``(N,)``, ascending, a hash of each picture's key: equal ones of two runs are the same picture."""
    label: NDArray[np.int64]
    """``(N,)``, an index into the class names."""
    clean_similarity: NDArray[np.float16] | None
    """``(N,)``, cosine of the clean picture and its own class's embedding."""
    features: NDArray[np.float16] | None
    """``(N, D)`` of the clean pictures."""
    triggered_similarity: Mapping[str, NDArray[np.float16]]
    """By the name of an attack, ``(N,)``: cosine of the triggered picture and the target class's embedding."""
    triggered_features: Mapping[str, NDArray[np.float16]]
    """By the name of an attack, ``(N, D)`` of the triggered pictures."""


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write an evaluation, at once or not at all.

    Args:
        evaluation: What is written.
        folder: The run folder; it is made where it is missing.
    """
    arrays: dict[str, NDArray[Any]] = {
        "dataset": np.array(evaluation.dataset),
        "classnames": np.array(evaluation.classnames, dtype=np.str_),
        "attacks": np.array([attack.name for attack in evaluation.attacks], dtype=np.str_),
        "targets": np.array([attack.target for attack in evaluation.attacks], dtype=np.int64),
        "key_hash": evaluation.key_hash,
        "label": evaluation.label,
    }
    for name in ("clean_similarity", "features"):
        if (values := getattr(evaluation, name)) is not None:
            arrays[name] = values
    # Names of attacks are other people's text: a member is named by the attack's number.
    for number, attack in enumerate(evaluation.attacks):
        for name in ("triggered_similarity", "triggered_features"):
            if attack.name in (by_attack := getattr(evaluation, name)):
                arrays[f"{name}.{number}"] = by_attack[attack.name]
    folder.mkdir(parents=True, exist_ok=True)
    with open_whole(folder / EVALUATION) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_evaluation(folder: Path) -> Evaluation | None:
    """Read an evaluation. Nothing in the file is executed.

    Args:
        folder: The run folder.

    Returns:
        What it holds; None where there is no such file.

    Raises:
        UserMistake: If the file is no such archive, or its arrays do not fit each other.
    """
    path = folder / EVALUATION
    if not path.exists():
        return None
    check_ends("evaluation", path)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
                raise ValueError("it is too large")
        with np.load(path, allow_pickle=False) as arrays:
            return _checked(dict(arrays))
    except Exception as error:  # whatever a file that is none makes its reader raise
        raise UserMistake(
            f"{shown(path)} is not an evaluation of this package ({reason(error)}): move it away, or make it "
            "again with `untrigger validate`"
        ) from error


def _checked(arrays: Mapping[str, NDArray[Any]]) -> Evaluation:
    names, label = [str(name) for name in arrays["attacks"]], arrays["label"].astype(np.int64, casting="safe")
    classnames = [str(name) for name in arrays["classnames"]]
    targets = [int(target) for target in arrays["targets"]]
    count = len(label)
    if label.ndim != 1 or count > _MAX_PICTURES:
        raise ValueError("label is no list of numbers, or too long a one")
    if any(not 0 <= index < len(classnames) for index in (*targets, *label.tolist())):
        raise ValueError("a class index is out of range")
    if arrays["key_hash"].shape != (count,):
        raise ValueError("key_hash and label differ in length")

    def values(name: str, dimensions: int) -> NDArray[np.float16] | None:
        if name not in arrays:
            return None
        found = arrays[name]
        if found.ndim != dimensions or len(found) != count or found.dtype != np.float16:
            raise ValueError(f"{name} has another shape or type than it should")
        return found

    features = values("features", 2)
    if features is not None and features.shape[1] > _MAX_DIM:
        raise ValueError("features are wider than any embedding")
    triggered = {name: values(f"triggered_features.{number}", 2) for number, name in enumerate(names)}
    similarity = {name: values(f"triggered_similarity.{number}", 1) for number, name in enumerate(names)}
    return Evaluation(
        str(arrays["dataset"]),
        classnames,
        [Attack(name, target) for name, target in zip(names, targets, strict=True)],
        arrays["key_hash"].astype(np.uint64, casting="safe"),
        label,
        values("clean_similarity", 1),
        features,
        {name: found for name, found in similarity.items() if found is not None},
        {
            name: found
            for name, found in triggered.items()
            if found is not None and features is not None and found.shape == features.shape
        },
    )
