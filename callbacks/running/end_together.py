"""A run of several processes ends in all of them when it fails in one, or is asked to end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from functools import cache
from threading import Event, Thread, Timer
from typing import Any

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.distributed_c10d import Store, _get_default_store

from ...contracts import UserMistake
from ...errors.libraries import refused_option
from ...errors.lines import user_message
from .whereabouts import Whereabouts

_FAILED, _SEEN, _FIRST = "untrigger/failed", "untrigger/seen", "untrigger/first"
_MISTAKE, _ERROR, _TERMINATED = 2, 1, 128 + signal.SIGTERM


class EndTogether(Callback):
    """Reports a failure to the other ranks, upon which they end too, each with the reason.

    Without it they would wait in a collective for the rank that has failed: half an hour or for ever, as neither NCCL
    nor ``srun`` (unless with ``--kill-on-bad-exit``) sees that a process is missing. A rank that waits runs no Python,
    so a thread looks into the store of the process group, and ends the process. A rank that Lightning started ends
    after the one that started it, which Lightning would kill otherwise, exit code and all.

    A rank that has waited in a collective for too long says which ranks did not come, and to which step. A rank that is
    asked to end by SIGTERM and cannot, because it waits or its step takes too long, is ended, and the others with it.

    Args:
        poll_seconds: How often each rank looks.
        grace_seconds: How long a failed rank waits until the others know, and how long it then has for its own end, of
            which a part may be a collective that cannot end.
        timeout_seconds: How long a rank waits for another, at the start and in each collective: the command line gives
            it to Lightning's strategy, unless that was built with a ``timeout`` of its own.
        terminate_seconds: How long after SIGTERM a rank may continue, to finish its step or validation and to write a
            checkpoint. SLURM kills 30 s after SIGTERM unless its ``KillWait`` says otherwise.

    Raises:
        UserMistake: If a time is not above 0.
    """

    def __init__(
        self,
        poll_seconds: float = 1.0,
        grace_seconds: float = 15.0,
        timeout_seconds: float = 1800.0,
        terminate_seconds: float = 20.0,
    ) -> None:
        if min(poll_seconds, grace_seconds, timeout_seconds, terminate_seconds) <= 0:
            raise UserMistake("end_together: poll_seconds and the other times are above 0")
        self._poll, self._grace, self.timeout_seconds = poll_seconds, grace_seconds, timeout_seconds
        self._terminate = terminate_seconds
        self._over, self._reported = Event(), Event()
        self._watch: Thread | None = None
        self._starter: int | None = None
        self._started: list[Any] = []
        self._at: Whereabouts | None = None
        self._signals: tuple[int, int, int] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start looking, where there are other ranks."""
        if _is_shared(trainer) and self._watch is None:
            self._over.clear()
            store, first = _get_default_store(), f"{_FIRST}/{trainer.node_rank}"
            if trainer.local_rank == 0:
                store.set(first, str(os.getpid()))
            # Whether it was the node's first rank that started this one.
            self._starter = os.getppid() if int(store.get(first)) == os.getppid() else None
            self._started = getattr(getattr(getattr(trainer, "strategy", None), "launcher", None), "procs", [])
            self._at = Whereabouts(store, trainer.global_rank, trainer.world_size)
            self._at.report()
            self._listen()
            self._watch = Thread(target=self._look, args=(store, trainer, self._at), daemon=True)
            self._watch.start()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop looking."""
        self._over.set()
        if self._watch is not None:
            self._watch.join()
            self._watch = self._at = None
        if self._signals is not None:
            before, *ends = self._signals
            signal.set_wakeup_fd(before)
            for end in ends:
                os.close(end)
            self._signals = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the step."""
        if self._at is not None:
            self._at.begin(f"batch {batch_idx} of epoch {trainer.current_epoch}")

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Note the step."""
        if self._at is not None:
            self._at.begin(f"batch {batch_idx} of the evaluation after step {trainer.global_step}")

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Report to the other ranks, and wait until they know: the store may end with this process."""
        message = self._reason(trainer, exception)  # while this rank can still be heard
        self._over.set()
        if self._reported.is_set() and self._watch is not None:
            self._watch.join()  # this process ends with that thread
        if message is None:
            return  # an interruption, which reaches every rank by itself
        code = _ERROR if _mistake(exception) is None else _MISTAKE
        try:
            self._spread(_get_default_store(), trainer, f"{code} {message}", self._grace)
        except RuntimeError:
            return  # the process that kept the store is gone
        self._outlive_starter()
        end = Timer(self._grace, _end, (message, code))
        end.daemon = True
        end.start()

    def _reason(self, trainer: Trainer, exception: BaseException) -> str | None:
        if not isinstance(exception, Exception) or not _is_shared(trainer):
            return None
        mistake = _mistake(exception)
        kind = f"{type(exception).__name__}: " if mistake is None else ""
        said = " ".join((mistake or str(exception)).split())
        if self._at is None or mistake is not None or not _is_timeout(said):
            return f"rank {trainer.global_rank}: {kind}{said}"
        try:
            missing = self._at.missing(3 * self._poll)
        except RuntimeError:
            missing = "the process that kept the store is gone"
        return f"rank {trainer.global_rank} waited in vain at {self._at.step}: {missing} ({kind}{said})"

    def _spread(self, store: Store, trainer: Trainer, message: str, seconds: float) -> None:
        last = time.monotonic() + seconds
        store.set(_FAILED, message)
        store.add(_SEEN, 1)
        while store.add(_SEEN, 0) < trainer.world_size and time.monotonic() < last:
            time.sleep(self._poll / 10)

    def _listen(self) -> None:
        """Have signals written to a pipe too: a main thread that waits in a collective does not handle them."""
        if threading.current_thread() is threading.main_thread():
            _let_forks_forget()
            reads, writes = os.pipe()
            os.set_blocking(reads, False)
            os.set_blocking(writes, False)
            self._signals = (signal.set_wakeup_fd(writes, warn_on_full_buffer=False), reads, writes)

    def _asked_to_end(self) -> bool:
        try:
            return self._signals is not None and signal.SIGTERM in os.read(self._signals[1], 4096)
        except BlockingIOError:
            return False

    def _look(self, store: Store, trainer: Trainer, at: Whereabouts) -> None:
        rank, end_by = trainer.global_rank, float("inf")
        while not self._over.wait(self._poll):
            if self._asked_to_end():
                end_by = min(end_by, time.monotonic() + self._terminate)
            try:
                at.report()
                if store.check([_FAILED]):
                    code, _, message = store.get(_FAILED).decode().partition(" ")
                    self._reported.set()
                    store.add(_SEEN, 1)
                    break
                if time.monotonic() > end_by:
                    code = str(_TERMINATED)
                    message = f"rank {rank}: SIGTERM {self._terminate:g} s ago at {at.step}; {at.missing(self._poll)}"
                    self._spread(store, trainer, f"{code} {message}", 2.0)
                    break
            except RuntimeError:
                # The process that kept the store is gone. A collective fails then, but not every rank is in one.
                if self._over.wait(self._grace):
                    return
                code, message = str(_ERROR), "the end of the rank that kept the store of the process group"
                break
        else:
            return
        _print(message if message.startswith(f"rank {rank}:") else f"rank {rank} ends because of {message}")
        self._outlive_starter()
        if int(code) == _TERMINATED:
            for process in self._started:  # one that is stopped, or hangs where no thread runs
                process.kill()
        os._exit(int(code))  # anything gentler would wait for the collective

    def _outlive_starter(self) -> None:
        """Wait until the rank that started this one has ended; it may take its grace to be heard, and one to end."""
        last = time.monotonic() + 3 * self._grace
        while self._starter == os.getppid() and time.monotonic() < last:
            time.sleep(self._poll / 10)


@cache
def _let_forks_forget() -> None:
    """A data worker has the pipe too, and a signal to it is none to this process."""

    def forget() -> None:
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(-1)

    os.register_at_fork(after_in_child=forget)


def _is_shared(trainer: Trainer) -> bool:
    return trainer.world_size > 1 and torch.distributed.is_available() and torch.distributed.is_initialized()


def _is_timeout(said: str) -> bool:
    return any(words in said.lower() for words in ("timed out", "timeout"))


def _print(message: str) -> None:
    print(f"untrigger: error: {message}", file=sys.stderr, flush=True)


def _end(message: str, code: int) -> None:
    _print(message)
    os._exit(code)


def _mistake(exception: BaseException) -> str | None:
    """The message for a user, where it is she who has to change something."""
    return user_message(exception) or refused_option(exception)
