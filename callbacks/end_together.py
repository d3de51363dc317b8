"""A run of several processes ends in all of them when it fails in one."""

from __future__ import annotations

import os
import sys
import time
from threading import Event, Thread, Timer

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.distributed_c10d import Store, _get_default_store

from ..contracts import UserMistake

_FAILED, _SEEN, _FIRST = "untrigger/failed", "untrigger/seen", "untrigger/first"
_MISTAKE, _ERROR = 2, 1


class EndTogether(Callback):
    """Tells the other ranks of a failure, upon which they end too, each with the reason.

    Without it they would wait in a collective for the rank that has failed: half an hour or for ever, as neither NCCL
    nor ``srun`` (unless with ``--kill-on-bad-exit``) sees that a process is missing. A rank that waits runs no Python,
    so a thread looks into the store of the process group, and ends the process. A rank that Lightning started ends
    after the one that started it, which Lightning would kill otherwise, exit code and all.

    Args:
        poll_seconds: How often each rank looks.
        grace_seconds: How long a failed rank waits until the others know, and how long it then has for its own end, of
            which a part may be a collective that cannot end.
    """

    def __init__(self, poll_seconds: float = 1.0, grace_seconds: float = 15.0) -> None:
        self._poll, self._grace = poll_seconds, grace_seconds
        self._over, self._told = Event(), Event()
        self._watch: Thread | None = None
        self._starter: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start looking, where there are other ranks."""
        if _is_shared(trainer) and self._watch is None:
            self._over.clear()
            store, first = _get_default_store(), f"{_FIRST}/{trainer.node_rank}"
            if trainer.local_rank == 0:
                store.set(first, str(os.getpid()))
            # Whether it was the node's first rank that started this one.
            self._starter = os.getppid() if int(store.get(first)) == os.getppid() else None
            self._watch = Thread(target=self._look, args=(store, trainer.global_rank), daemon=True)
            self._watch.start()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop looking."""
        self._over.set()
        if self._watch is not None:
            self._watch.join()
            self._watch = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell the other ranks, and wait until they know: the store may end with this process."""
        self._over.set()
        if self._told.is_set() and self._watch is not None:
            self._watch.join()  # this process ends with that thread
        if not isinstance(exception, Exception) or not _is_shared(trainer):
            return  # an interruption, which reaches every rank by itself
        is_mistake = isinstance(exception, UserMistake)
        code, kind = (_MISTAKE, "") if is_mistake else (_ERROR, f"{type(exception).__name__}: ")
        told = f"rank {trainer.global_rank}: {kind}{' '.join(str(exception).split())}"
        try:
            store, last = _get_default_store(), time.monotonic() + self._grace
            store.set(_FAILED, f"{code} {told}")
            store.add(_SEEN, 1)
            while store.add(_SEEN, 0) < trainer.world_size and time.monotonic() < last:
                time.sleep(self._poll / 10)
        except RuntimeError:
            return  # the process that kept the store is gone
        self._outlive_starter()
        end = Timer(self._grace, _end, (told, code))
        end.daemon = True
        end.start()

    def _look(self, store: Store, rank: int) -> None:
        while not self._over.wait(self._poll):
            try:
                if not store.check([_FAILED]):
                    continue
                code, _, told = store.get(_FAILED).decode().partition(" ")
                self._told.set()
                store.add(_SEEN, 1)
            except RuntimeError:
                return  # the process that kept the store is gone
            _tell(f"rank {rank} ends because of {told}")
            self._outlive_starter()
            os._exit(int(code))  # anything gentler would wait for the collective

    def _outlive_starter(self) -> None:
        """Wait until the rank that started this one has ended; it may take its grace to be heard, and one to end."""
        last = time.monotonic() + 3 * self._grace
        while self._starter == os.getppid() and time.monotonic() < last:
            time.sleep(self._poll / 10)


def _is_shared(trainer: Trainer) -> bool:
    return trainer.world_size > 1 and torch.distributed.is_available() and torch.distributed.is_initialized()


def _tell(told: str) -> None:
    print(f"untrigger: error: {told}", file=sys.stderr, flush=True)


def _end(told: str, code: int) -> None:
    _tell(told)
    os._exit(code)
