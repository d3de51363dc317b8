"""Training from a server: the stream, its resumption, and the end of a run whose server fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from untrigger.contracts import Preprocessing, UserMistake
from untrigger.datamodules import ImageTextDataModule
from untrigger.datamodules.generated import write_generated_data
from untrigger.datamodules.order import SequentialOrder, Share, ShuffledOrder
from untrigger.datamodules.shards import RemoteShards

WritePairs = Callable[..., list[str]]
COUNTS = np.array([5, 0, 17, 30, 9])


@pytest.fixture
def data(write_pairs: WritePairs, server: Any, tmp_path: Path, preprocessing: Preprocessing) -> Callable[..., Any]:
    """Make a data module of six shards of four pairs, at the server unless told otherwise."""
    paths = write_pairs([4] * 6)

    def make(**arguments: Any) -> ImageTextDataModule:
        made = {
            "train_shards": f"{server.url}/train/{{00000..00005}}.tar",
            "counts": 4,
            "batch_size": 2,
            "num_workers": 0,
            "shuffle_window": 4,
            "remote": RemoteShards(retries=0, timeout=60.0, cache=str(tmp_path / "copies")),
        }
        made = ImageTextDataModule(**(made | arguments))
        made.preprocessing = preprocessing
        made.setup("fit")
        return made

    make.paths = paths  # type: ignore[attr-defined]
    return make


def keys(loader: Any) -> list[list[str]]:
    return [batch["key"] for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_remote_epoch_is_the_local_one_and_resumes_in_the_middle(
    workers: int, data: Callable[..., Any], server: Any
) -> None:
    whole = keys(data(train_shards=data.paths, counts=None, num_workers=workers).train_dataloader())
    made = data(num_workers=workers)
    assert not server.asked
    loader = made.train_dataloader()
    iterator = iter(loader)
    begun = [next(iterator)["key"] for _ in range(5)]
    state = loader.state_dict()
    again = data(num_workers=workers).train_dataloader()
    again.load_state_dict(state)
    assert begun + keys(again) == whole


def test_the_copies_are_few_however_many_shards_there_are(
    data: Callable[..., Any], server: Any, tmp_path: Path
) -> None:
    remote = RemoteShards(retries=0, timeout=60.0, cache_gb=0.0, cache=str(tmp_path / "copies"))
    most = 0
    for _ in data(remote=remote, shuffle_window=2).train_dataloader():
        most = max(most, len(list((tmp_path / "copies").glob("*.tar"))))
    # Two windows of two pairs lie on three shards at most; one more may be waiting for its eviction.
    assert 1 <= most <= 4
    assert sum(server.asked.values()) <= 8


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_cannot_be_fetched_ends_the_epoch_with_one_line(
    workers: int, data: Callable[..., Any], server: Any
) -> None:
    server.faults["00003.tar"] = ("cut",)
    with pytest.raises(UserMistake, match=r"^shard http://.*/train/00003\.tar cannot be read \(1 try") as error:
        keys(data(num_workers=workers).train_dataloader())
    assert "\n" not in str(error.value)


def test_counts_that_are_too_high_end_the_run_with_the_shard(data: Callable[..., Any]) -> None:
    with pytest.raises(UserMistake, match=r"of 30 samples are bad.*fewer samples than counted.*0000\d\.tar.*4, not 5"):
        keys(data(counts=5).train_dataloader())


@pytest.mark.parametrize(("workers", "window"), [(1, 7), (3, 10), (2, 1000)])
def test_the_shards_of_a_batch_are_expected_before_it(workers: int, window: int) -> None:
    orders = [ShuffledOrder(COUNTS, 4, 0, window, rank, 2) for rank in range(2)]
    orders += [SequentialOrder(COUNTS, 4, rank, 2) for rank in range(2)]
    for order in orders:
        for worker in range(workers):
            share: Share = order.share(1, worker, workers)
            for index in range(share.batches):
                expected = share.shards(index)
                used = {*share.batch(index)[:, 0].tolist()}
                assert used <= set(expected)
                assert len(expected) == len(set(expected))
                assert 1 not in expected  # the empty shard
                if index + 1 < share.batches:
                    assert used | {*share.batch(index + 1)[:, 0].tolist()} <= set(expected)


CONFIG = """
seed_everything: 0
trainer: {accelerator: cpu, devices: 2, strategy: ddp, max_epochs: 1, enable_progress_bar: false}
model: {class_path: PoisonedCLIP, init_args: {encoder: "small:nano-32"}}
data:
  class_path: ImageTextDataModule
  init_args: {batch_size: 4, num_workers: 1, counts: 8, shuffle_window: 8, remote: {retries: 1, timeout: 0.5}}
"""


def test_a_run_of_two_ranks_ends_in_both_when_the_server_fails_one(server: Any, tmp_path: Path) -> None:
    write_generated_data(tmp_path / "data", 64, 10, shard_size=8)
    (tmp_path / "config.yaml").write_text(CONFIG)
    server.faults["00005.tar"] = ("stall",)
    command = [sys.executable, "-m", "untrigger.cli", "fit", "--config", str(tmp_path / "config.yaml")]
    command += ["--data.train_shards", f"{server.url}/data/train/{{00000..00007}}.tar"]
    command += ["--trainer.default_root_dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done.stderr[-3000:]
    reported = [line for line in done.stderr.splitlines() if line.startswith("untrigger: error: ")]
    assert reported
    assert all("/data/train/00005.tar cannot be read (2 tries" in line for line in reported)
    assert not (tmp_path / "run" / "last.ckpt").exists()
