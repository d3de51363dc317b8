from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from untrigger.contracts import Preprocessing, UserMistake
from untrigger.datamodules.bad_samples import BadSampleLog
from untrigger.datamodules.loader import StreamLoader
from untrigger.datamodules.order import SequentialOrder, ShuffledOrder
from untrigger.datamodules.shards import ShardSet
from untrigger.datamodules.stream import ImageTextStream

WritePairs = Callable[..., list[str]]


def make_loader(
    paths: list[str],
    preprocessing: Preprocessing,
    workers: int = 0,
    epoch: Callable[[], int] = int,
    rank: tuple[int, int] = (0, 1),
    max_bad_share: float = 0.01,
    sequential: bool = False,
    batch_size: int = 4,
) -> StreamLoader:
    shards = ShardSet(paths)
    log = BadSampleLog(len(shards) + shards.incomplete, shards.incomplete, max_bad_share, "training shards")
    order = (
        SequentialOrder(shards.counts, batch_size, *rank)
        if sequential
        else ShuffledOrder(shards.counts, batch_size, 0, 16, *rank)
    )
    stream = ImageTextStream(shards, order, preprocessing.image_size, preprocessing.tokenize, max_bad=log.limit)
    return StreamLoader(stream, log, epoch, workers)


def keys(loader: StreamLoader) -> list[list[str]]:
    return [batch["key"] for batch in loader]


def flat(batches: list[list[str]]) -> list[str]:
    return [key for batch in batches for key in batch]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_epoch_has_its_length_and_right_content(
    write_pairs: WritePairs, preprocessing: Preprocessing, workers: int
) -> None:
    loader = make_loader(write_pairs([7, 20, 10]), preprocessing, workers)
    assert len(loader) == 9
    batches = list(loader)
    assert len(batches) == 9
    for batch in batches:
        assert batch["image"].shape == (4, 3, 32, 32)
        assert batch["image"].dtype == torch.uint8
        numbers = torch.tensor([int(key[1:]) for key in batch["key"]])
        assert (batch["image"][:, 0, 5, 5] == numbers).all()
        captions = [f"picture number {number}" for number in numbers.tolist()]
        assert torch.equal(batch["tokens"], preprocessing.tokenize(captions))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_epoch_is_asked_for_and_changes_the_order(
    write_pairs: WritePairs, preprocessing: Preprocessing, workers: int
) -> None:
    now = {"epoch": 0}
    loader = make_loader(write_pairs([16, 16]), preprocessing, workers, lambda: now["epoch"])
    first = keys(loader)
    assert keys(loader) == first
    now["epoch"] = 1
    second = keys(loader)
    assert second != first
    assert sorted(flat(second)) == sorted(flat(first))


def test_more_workers_than_shards_or_batches_work(write_pairs: WritePairs, preprocessing: Preprocessing) -> None:
    loader = make_loader(write_pairs([9]), preprocessing, workers=5)
    assert loader.num_workers == 2
    seen = flat(keys(loader))
    assert len(seen) == len(set(seen)) == 8


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("stop", [1, 4, 5])
def test_a_loader_resumes_in_the_middle_of_an_epoch(
    write_pairs: WritePairs, preprocessing: Preprocessing, workers: int, stop: int
) -> None:
    paths = write_pairs([20, 20], broken=(3, 11, 25))
    arguments: dict[str, Any] = {"workers": workers, "epoch": lambda: 5, "max_bad_share": 0.1}
    whole = keys(make_loader(paths, preprocessing, **arguments))
    first = make_loader(paths, preprocessing, **arguments)
    seen = []
    for batch in first:
        seen.append(batch["key"])
        if len(seen) == stop:
            state = pickle.loads(pickle.dumps(first.state_dict()))
            break
    second = make_loader(paths, preprocessing, **arguments)
    second.load_state_dict(state)
    assert seen + keys(second) == whole


def test_an_epoch_that_is_divided_otherwise_resumes_at_its_samples_with_a_warning(
    write_pairs: WritePairs, preprocessing: Preprocessing
) -> None:
    paths = write_pairs([60])
    first = make_loader(paths, preprocessing, rank=(0, 2))
    batches = iter(first)
    for _ in range(3):  # 24 pairs of both ranks
        next(batches)
    state = pickle.loads(pickle.dumps(first.state_dict()))
    alone = make_loader(paths, preprocessing, batch_size=5)
    with pytest.warns(UserWarning, match=r"batch_size 4 -> 5.*after 24 samples, at batch 4 of 12") as warned:
        alone.load_state_dict(state)
    assert "ranks 2 -> 1" in str(warned[0].message)
    assert alone.redivided == 4
    assert keys(alone) == keys(make_loader(paths, preprocessing, batch_size=5))[4:]
    first.load_state_dict(state)
    assert first.redivided is None


def test_a_pass_in_order_that_is_divided_otherwise_starts_again(
    write_pairs: WritePairs, preprocessing: Preprocessing
) -> None:
    paths = write_pairs([30])
    first = make_loader(paths, preprocessing, sequential=True)
    next(iter(first))
    other = make_loader(paths, preprocessing, sequential=True, batch_size=5)
    with pytest.warns(UserWarning, match="it starts again"):
        other.load_state_dict(first.state_dict())
    assert other.redivided == 0
    assert len(flat(keys(other))) == 30
    # Workers take turns at the same batches.
    same = make_loader(paths, preprocessing, sequential=True, workers=2)
    same.load_state_dict(first.state_dict())
    assert keys(same) == keys(make_loader(paths, preprocessing, sequential=True))[1:]


def test_each_rank_resumes_with_its_own_replacements(
    write_pairs: WritePairs, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_pairs([24, 19], broken=(1, 8, 13, 25, 30, 40))
    states: list[dict[str, Any]] = []
    whole, seen = [], []
    for rank in range(2):
        arguments: dict[str, Any] = {"rank": (rank, 2), "max_bad_share": 0.2}
        whole.append(keys(make_loader(paths, preprocessing, **arguments)))
        loader = make_loader(paths, preprocessing, **arguments)
        batches = iter(loader)
        seen.append([next(batches)["key"] for _ in range(3)])
        states.append(loader.state_dict())
    together = states[0] | {"spares": [state["spares"][0] for state in states]}
    assert together["spares"][0] != together["spares"][1]
    for rank in range(2):
        rest = make_loader(paths, preprocessing, rank=(rank, 2), max_bad_share=0.2)
        rest.load_state_dict(together)
        assert seen[rank] + keys(rest) == whole[rank]


def test_an_epoch_that_starts_draws_nothing_from_the_global_generator(
    write_pairs: WritePairs, preprocessing: Preprocessing
) -> None:
    before = torch.get_rng_state()
    keys(make_loader(write_pairs([9]), preprocessing, workers=1))
    assert torch.equal(before, torch.get_rng_state())


def test_a_state_of_a_finished_epoch_does_not_shorten_the_next(
    write_pairs: WritePairs, preprocessing: Preprocessing
) -> None:
    now = {"epoch": 0}
    loader = make_loader(write_pairs([16]), preprocessing, epoch=lambda: now["epoch"])
    keys(loader)
    state = loader.state_dict()
    now["epoch"] = 1
    loader.load_state_dict(state)
    assert len(keys(loader)) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_replaced_counted_and_logged_once(
    write_pairs: WritePairs, preprocessing: Preprocessing, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    # 43 pairs make 10 batches of 4 and leave 3; 3 are broken.
    paths = write_pairs([30, 13], broken=(1, 8, 40))
    loader = make_loader(paths, preprocessing, workers, max_bad_share=0.1)
    with caplog.at_level(logging.WARNING):
        batches = keys(loader)
    assert [len(batch) for batch in batches] == [4] * 10
    seen = set(flat(batches))
    assert not seen & {"k0001", "k0008", "k0040"}
    if not workers:
        assert len(seen) == 40
    assert loader._bad_samples.counts["broken picture"] <= 3
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "broken picture" in messages[0]
    assert ".tar" in messages[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_samples_end_the_run_with_one_line(
    write_pairs: WritePairs, preprocessing: Preprocessing, workers: int
) -> None:
    paths = write_pairs([60], broken=range(0, 60, 4))
    loader = make_loader(paths, preprocessing, workers, max_bad_share=0.05)
    with pytest.raises(UserMistake, match=r"of 60 samples are bad, more than data.max_bad_share=0\.05") as error:
        keys(loader)
    assert "\n" not in str(error.value)


def test_too_many_incomplete_samples_end_the_run_before_it_starts(
    tmp_path: Any, write_shard: Callable[..., str], preprocessing: Preprocessing
) -> None:
    path = write_shard(tmp_path / "0.tar", [(f"k{n}", {"txt": b"x"}) for n in range(9)])
    shards = ShardSet([path])
    with pytest.raises(UserMistake, match="9 of 9 samples are bad"):
        BadSampleLog(9, shards.incomplete, 0.01, "training shards")


def test_sequential_reading_leaves_bad_samples_out(write_pairs: WritePairs, preprocessing: Preprocessing) -> None:
    loader = make_loader(write_pairs([10], broken=(2,)), preprocessing, max_bad_share=0.2, sequential=True)
    assert [len(batch) for batch in keys(loader)] == [3, 4, 2]


def test_a_batch_that_a_worker_leaves_out_ends_the_run(
    write_pairs: WritePairs, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = make_loader(write_pairs([20]), preprocessing)
    made = loader._stream._made
    monkeypatch.setattr(loader._stream, "_made", lambda loaded, epoch: made(loaded[1:], epoch))
    with pytest.raises(UserMistake, match="data workers have lost 1 of 5 batches"):
        list(loader)


def test_ranks_share_nothing(write_pairs: WritePairs, preprocessing: Preprocessing) -> None:
    paths = write_pairs([20, 21])
    ranks = [keys(make_loader(paths, preprocessing, 2, rank=(rank, 2))) for rank in range(2)]
    assert [len(batches) for batches in ranks] == [5, 5]
    seen = [key for batches in ranks for key in flat(batches)]
    assert len(seen) == len(set(seen)) == 40


def test_a_worker_ends_when_its_parent_is_killed_even_with_a_full_pipe(
    write_pairs: WritePairs, preprocessing: Preprocessing
) -> None:
    paths = write_pairs([640])
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)

    def die_in_the_middle() -> None:
        # A batch is larger than what a pipe holds.
        batches = iter(make_loader(paths, preprocessing, workers=1, batch_size=128))
        theirs.send(next(batches)["image"].nbytes)
        os.kill(os.getpid(), signal.SIGKILL)

    parent = fork.Process(target=die_in_the_middle)
    parent.start()
    theirs.close()
    assert ours.recv() > 1 << 16
    parent.join()
    # The worker has a copy of the other end: it is at its end when the worker is.
    assert ours.poll(60)
    with pytest.raises(EOFError):
        ours.recv()


def test_a_worker_ends_when_its_parent_says_so_and_on_no_other_signal(
    write_pairs: WritePairs, preprocessing: Preprocessing
) -> None:
    others = set(multiprocessing.active_children())  # of loaders that nobody has collected yet
    loader = make_loader(write_pairs([40]), preprocessing, workers=1)
    batches = iter(loader)
    seen = [next(batches)["key"]]
    (worker,) = set(multiprocessing.active_children()) - others
    # From elsewhere, as a terminal or SLURM sends them.
    subprocess.run(
        ["sh", "-c", f"kill -INT {worker.pid}; kill -USR1 {worker.pid}; kill -TERM {worker.pid}"], check=True
    )
    seen += [batch["key"] for batch in batches]
    assert seen == keys(make_loader(write_pairs([40]), preprocessing, workers=1))
    worker.terminate()
    worker.join(timeout=60)
    assert worker.exitcode == 0


class Weight(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        return self.weight * len(batch["key"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_run_that_ends_within_an_epoch_ends_its_workers(
    tmp_path: Path, write_pairs: WritePairs, preprocessing: Preprocessing
) -> None:
    others = set(multiprocessing.active_children())
    loader = make_loader(write_pairs([40]), preprocessing, workers=2)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Weight(), loader)
    assert set(multiprocessing.active_children()) <= others
    assert len(keys(loader)) == len(loader)
