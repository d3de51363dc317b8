"""A loader that knows the epoch, counts bad samples and resumes in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from ..contracts import UserMistake
from .bad_samples import BadSampleLog
from .parcels import pack, unpack
from .stream import ShardStream, StreamItem


def _as_it_is(item: Any) -> Any:
    return item


def _packed(item: Any) -> Any:
    return item._replace(batch=pack(item.batch))


class StreamLoader:
    """Hands out the batches of a stream.

    It has a ``DataLoader`` and is none: Lightning would put samplers of its own into one.

    Args:
        stream: Makes the batches.
        bad_samples: Counts what the stream skipped.
        epoch: Tells the epoch at the start of an iteration. Lightning does not call ``set_epoch`` of an iterable data
            set, so it is asked for.
        num_workers: Processes that read; 0 reads in this one.
        pin_memory: As for ``DataLoader``.
    """

    def __init__(
        self,
        stream: ShardStream,
        bad_samples: BadSampleLog,
        epoch: Callable[[], int] = int,
        num_workers: int = 0,
        pin_memory: bool = False,
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
            collate_fn=_packed if self.num_workers and not pin_memory else _as_it_is,
        )
        self._stream, self._bad_samples, self._epoch_now = stream, bad_samples, epoch
        self._resume: dict[str, Any] | None = None
        self._state: dict[str, Any] = {"epoch": 0, "batches": 0, "spares": {}}

    def __len__(self) -> int:
        return len(self._stream)

    def __iter__(self) -> Iterator[Any]:
        """Hand out the batches of an epoch.

        Raises:
            UserMistake: If too many samples are bad, or a shard cannot be read.
        """
        epoch = self._epoch_now()
        resumed, self._resume = self._resume, None
        if resumed is None or resumed["epoch"] != epoch:
            resumed = {"epoch": epoch, "batches": 0, "spares": {}}
        self._state = state = {**resumed, "spares": dict(resumed["spares"])}
        self._bad_samples.reset()
        self._stream.start_at(epoch, state["batches"], state["spares"])
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

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: the epoch, the batches handed out in it, and the replacements used by worker."""
        return {**self._state, "spares": dict(self._state["spares"]), **self._shape}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a loader with the same shards, ranks and workers stood; the next iteration starts there.

        Raises:
            UserMistake: If it stood in the middle of an epoch that was divided otherwise.
        """
        for name, value in self._shape.items():
            if 0 < state_dict["batches"] < state_dict["steps"] and state_dict[name] != value:
                raise UserMistake(
                    f"the checkpoint is from the middle of an epoch with {state_dict[name]} {name} and this run has "
                    f"{value}: go on with the same shards, batch size, processes and data.num_workers"
                )
        self._resume = state_dict

    @property
    def _shape(self) -> dict[str, int]:
        """What the order of an epoch depends on beside the seed."""
        return {"workers": self.num_workers, "steps": len(self)}
