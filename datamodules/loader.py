"""A loader that knows the epoch, counts bad samples and resumes in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from ..contracts import UserMistake
from ..trainer.all_ranks import all_ranks
from .bad_samples import BadSampleLog
from .batch_packing import pack, unpack
from .stream import ShardStream, StreamItem
from .workers import outlive_signals


def _as_it_is(item: Any) -> Any:
    return item


def _packed(item: Any) -> Any:
    return item._replace(batch=pack(item.batch))


def _shared(item: Any) -> Any:
    return item._replace(batch=pack(item.batch, least=0))


class StreamLoader:
    """Hands out the batches of a stream.

    It has a ``DataLoader`` and is none: Lightning would put samplers of its own into one.

    Its state goes into every checkpoint, and a loader that takes it over gives exactly the samples that were due. In an
    epoch that is divided otherwise, by other ranks, workers or batches, no such samples are known: it resumes at the
    same number of samples, and a pass in order starts again.

    Args:
        stream: Makes the batches.
        bad_samples: Counts what the stream skipped.
        epoch: Gives the epoch at the start of an iteration. Lightning does not call ``set_epoch`` of an iterable data
            set, so it is asked for.
        num_workers: Processes that read; 0 reads in this one.
        pin_memory: As for ``DataLoader``.
        repeated: Whether every epoch gives what the first one gives, in its order and with its views.

    Attributes:
        redivided: The batch that it resumes with, where the state that was loaded is of another division; else None.
    """

    def __init__(
        self,
        stream: ShardStream,
        bad_samples: BadSampleLog,
        epoch: Callable[[], int] = int,
        num_workers: int = 0,
        pin_memory: bool = False,
        repeated: bool = False,
    ) -> None:
        # A worker without a batch would be started for nothing.
        self.num_workers = min(num_workers, len(stream))
        self._loader: DataLoader[StreamItem] = DataLoader(
            stream,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=pin_memory,
            # Only tensors can be pinned.
            collate_fn=(_shared if pin_memory else _packed) if self.num_workers else _as_it_is,
            worker_init_fn=outlive_signals,
            # Its own: an epoch that starts draws from it, and one that is resumed must not draw again.
            generator=torch.Generator().manual_seed(torch.initial_seed()),
        )
        self._stream, self._bad_samples, self._epoch_now, self._repeated = stream, bad_samples, epoch, repeated
        self.redivided: int | None = None
        self._resume: dict[str, Any] | None = None
        self._state: dict[str, Any] = {"epoch": 0, "batches": 0, "spares": {}}

    def __len__(self) -> int:
        return len(self._stream)

    def __iter__(self) -> Iterator[Any]:
        """Hand out the batches of an epoch.

        Raises:
            UserMistake: If too many samples are bad, a shard cannot be read, or a worker has left a batch out.
        """
        epoch = self._epoch_now()
        resumed, self._resume = self._resume, None
        if resumed is None or resumed["epoch"] != epoch:
            resumed = {"epoch": epoch, "batches": 0, "spares": {}}
        self._state = state = {**resumed, "spares": dict(resumed["spares"])}
        self._bad_samples.reset()
        self._stream.start_at(0 if self._repeated else epoch, state["batches"], state["spares"])
        workers = max(self.num_workers, 1)
        for item in self._loader:
            self._bad_samples.add(item.bad)
            if item.failure:
                raise UserMistake(item.failure)
            # Counted before it is handed out: a checkpoint written while it is trained on has seen it.
            state["spares"][state["batches"] % workers] = item.spares
            state["batches"] += 1
            if item.batch:
                yield unpack(item.batch)
        if state["batches"] < len(self):
            lost = len(self) - state["batches"]
            raise UserMistake(f"data workers have lost {lost:,} of {len(self):,} batches: see what they said above")

    @property
    def _iterator(self) -> Any:
        # Lightning ends the workers of a loader by this name when a run ends. The garbage collector closes their queues
        # first, and each is then waited for in vain for 5 s.
        return self._loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._loader._iterator = iterator

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands; every rank has to ask, as each has replacements of its own.

        Returns:
            The epoch, the batches handed out in it and the batches that it has, the replacements used by worker for
            each rank, and how the epoch is divided, as plain data.
        """
        return {
            "epoch": self._state["epoch"],
            "batches": self._state["batches"],
            "steps": len(self),
            "spares": all_ranks(dict(self._state["spares"])),
            "division": self._division,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume where a loader stood; the next iteration starts there, if it is of the same epoch.

        Warns:
            UserWarning: If it stood in the middle of an epoch that was divided otherwise.
        """
        batches, rank = state_dict["batches"], self._stream.order.rank
        self._resume = {"epoch": state_dict["epoch"], "batches": batches, "spares": {}}
        old, new = state_dict["division"], self._division
        if old == new:
            spares = state_dict["spares"]
            self._resume["spares"] = spares[rank] if rank < len(spares) else {}
        elif 0 < batches < state_dict["steps"]:
            samples = batches * old["batch_size"] * old["ranks"]
            self.redivided = self._resume["batches"] = self._stream.order.resumed(samples)
            changed = ", ".join(
                f"{name} {old.get(name)} -> {new.get(name)}" for name in old | new if old.get(name) != new.get(name)
            )
            rank_zero_warn(
                f"The checkpoint is from the middle of an epoch that was divided otherwise ({changed}): "
                + (
                    f"it resumes after {samples} samples, at batch {self.redivided} of {len(self)}. Some samples of "
                    "this epoch come twice and some not at all, and the learning rate continues from its step"
                    if self.redivided
                    else "it starts again"
                )
            )

    @property
    def _division(self) -> dict[str, int]:
        return self._stream.order.division(self.num_workers)
