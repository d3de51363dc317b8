"""A callback that keeps the features and similarities of a sample of test pictures, for the figures of a report."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import Tensor

from ...contracts import Attack, UserMistake, ZeroShotBatch, ZeroShotOutputs
from ...run_folder.evaluation import Evaluation, write_evaluation
from ...trainer.all_ranks import all_ranks
from ..evaluation_hooks import EvaluationHooks
from ..requirements import zero_shot_data

_Arrays = dict[str, NDArray[Any]]


class EvaluationSample(EvaluationHooks):
    """Writes ``evaluation.npz`` in the run folder: features and similarities of a fixed sample of the test pictures.

    A report draws from it how similar clean pairs and poisoned ones are, and where clean and triggered pictures lie.
    The sample is that of the smallest hashes of the keys: the same pictures for every run on the same test set,
    whatever the order, the batches and the number of ranks. It is written when ``ResultsWriter`` writes: after ``fit``,
    if its last validation was at its end, and after ``validate`` and ``test``; `Evaluation` has what it holds.

    Nothing is computed again: what the evaluation step returned is kept on its device, in half precision, and read
    once at the end. What ``ZeroShotOutputs`` need not have and a module leaves out is missing in the file.

    An attack that stamps nothing is left out, as there are no triggered pictures beside clean ones.

    Args:
        pictures: Pictures in the sample, at most. 0 writes no file.

    Raises:
        UserMistake: If the number is negative.
    """

    def __init__(self, pictures: int = 2000) -> None:
        super().__init__()
        if pictures < 0:
            raise UserMistake(f"evaluation_sample.pictures is {pictures}: it is at least 0, which writes no file")
        self.pictures = pictures
        self._hashes = np.empty(0, dtype=np.uint64)
        self._kept: list[dict[str, Tensor]] = []
        self._attacks: list[Attack] = []
        self._measured_at: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After ``validate``, write the file."""
        if trainer.sanity_checking:
            return
        self._measured_at = trainer.global_step
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file of the last validation, if it saw the model that training ended with."""
        if self._measured_at == trainer.global_step:
            self._write(trainer)

    def start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the sample."""
        self._hashes, self._kept = np.empty(0, dtype=np.uint64), []
        attacks = zero_shot_data(trainer).attacks
        self._attacks = [attack for attack in attacks if attack.control_of is None and attack.stamped]

    def see(self, batch: ZeroShotBatch, outputs: ZeroShotOutputs) -> None:
        """Keep the pictures whose hashes are among the smallest so far. The keys say which, without the device."""
        if not self.pictures:
            return
        hashes = _hashes(batch["key"])
        chosen = np.flatnonzero(hashes <= _threshold(np.concatenate([self._hashes, hashes]), self.pictures))
        self._hashes = np.concatenate([self._hashes, hashes[chosen]])
        label = outputs["label"]
        index = torch.from_numpy(chosen).to(label.device, non_blocking=True)
        kept = {"label": label[index]}
        if "features" in outputs:
            kept["features"] = outputs["features"][index].half()
        for number, attack in enumerate(self._attacks):
            if attack.name in outputs.get("triggered_features", {}):
                kept[f"triggered_features.{number}"] = outputs["triggered_features"][attack.name][index].half()
        if "inverse_temperature" in outputs:
            scale = outputs["inverse_temperature"]
            own = outputs["logits"][index].gather(1, kept["label"][:, None])[:, 0]
            kept["clean_similarity"] = (own / scale).half()
            for number, attack in enumerate(self._attacks):
                moved = outputs["triggered_logits"][attack.name][index, attack.target]
                kept[f"triggered_similarity.{number}"] = (moved / scale).half()
        self._kept.append(kept)

    def _write(self, trainer: Trainer) -> None:
        rehearsal: bool = trainer.fast_dev_run  # type: ignore[attr-defined]  # a connector sets it
        if rehearsal or not self.pictures:
            return
        arrays = self._gather()
        if trainer.is_global_zero and "label" in arrays:
            data = zero_shot_data(trainer)
            evaluation = _evaluation(arrays, self._attacks, data.dataset_name, data.class_prompts.classnames)
            write_evaluation(evaluation, Path(trainer.default_root_dir))

    def _gather(self) -> _Arrays:
        """The sample over all ranks, in the order of the hashes."""
        names = self._kept[0] if self._kept else {}
        mine: _Arrays = {name: torch.cat([kept[name] for kept in self._kept]).cpu().numpy() for name in names}
        mine["hash"] = self._hashes
        # First the hashes alone: no rank sends what is not in the sample.
        smallest = _threshold(np.concatenate(all_ranks(mine["hash"])), self.pictures)
        chosen = mine["hash"] <= smallest
        parts = [part for part in all_ranks({name: values[chosen] for name, values in mine.items()}) if part]
        filled = [part for part in parts if len(part["hash"])]
        if not filled:
            return {}
        arrays = {name: np.concatenate([part[name] for part in filled]) for name in filled[0]}
        # A sampler that pads ranks to the same length shows a picture twice.
        _, first = np.unique(arrays["hash"], return_index=True)
        return {name: values[first[: self.pictures]] for name, values in arrays.items()}


def _hashes(keys: Sequence[str]) -> NDArray[np.uint64]:
    digests = (hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest() for key in keys)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _threshold(hashes: NDArray[np.uint64], count: int) -> np.uint64:
    """The count-th smallest of different hashes; the largest number there is where there are fewer."""
    different = np.unique(hashes)
    return different[count - 1] if len(different) >= count else np.uint64(np.iinfo(np.uint64).max)


def _evaluation(arrays: _Arrays, attacks: list[Attack], dataset: str, classnames: list[str]) -> Evaluation:
    def by_attack(name: str) -> _Arrays:
        found = {attack.name: f"{name}.{number}" for number, attack in enumerate(attacks)}
        return {attack: arrays[member] for attack, member in found.items() if member in arrays}

    return Evaluation(
        dataset,
        classnames,
        attacks,
        arrays["hash"],
        arrays["label"],
        arrays.get("clean_similarity"),
        arrays.get("features"),
        by_attack("triggered_similarity"),
        by_attack("triggered_features"),
    )
