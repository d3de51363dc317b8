"""The states of the random generators, in every checkpoint."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ...trainer.all_ranks import all_ranks


class RandomStates(Callback):
    """Lets a resumed run draw what it would have drawn: dropout, sampling in a step.

    The generators of torch (on the CPU and on this process's GPU), NumPy and Python, of each rank. They are set when
    the first batch has arrived, as its reader may have drawn what the uninterrupted run did not. A rank that the
    checkpoint does not know keeps what it was seeded with.
    """

    def __init__(self) -> None:
        self._due: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """The states of all ranks, as plain data and tensors; every rank has to ask."""
        return {"ranks": all_ranks(_states())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep them until training resumes."""
        self._due = state_dict["ranks"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set them, once."""
        due, self._due = self._due, []
        if trainer.global_rank < len(due):
            _restore(due[trainer.global_rank])


def _states() -> dict[str, Any]:
    kind, words, *rest = np.random.get_state(legacy=True)
    states = {
        "torch": torch.get_rng_state(),
        # A tensor, as checkpoints are loaded without NumPy's arrays.
        "numpy": [kind, torch.from_numpy(np.asarray(words, dtype=np.int64)), *rest],
        "python": random.getstate(),
    }
    return states | ({"cuda": torch.cuda.get_rng_state()} if _has_cuda() else {})


def _restore(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    kind, words, *rest = states["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), *rest))
    random.setstate(states["python"])
    if "cuda" in states and _has_cuda():
        torch.cuda.set_rng_state(states["cuda"])


def _has_cuda() -> bool:
    """Whether this process uses a GPU: to ask for the generator's state would start one."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
