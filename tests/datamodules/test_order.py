from __future__ import annotations

import numpy as np
import pytest

from untrigger.contracts import UserMistake
from untrigger.datamodules.order import Order, SequentialOrder, ShuffledOrder

COUNTS = np.array([5, 0, 17, 30, 9])


def dealt(order: Order, epoch: int, workers: int) -> list[list[tuple[int, int]]]:
    """The batches of a rank in the order in which a loader hands them out."""
    shares = [order.share(epoch, worker, workers) for worker in range(workers)]
    assert sum(share.batches for share in shares) == order.steps
    return [
        [(shard, position) for shard, position in shares[step % workers].batch(step // workers).tolist()]
        for step in range(order.steps)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("window", [1, 7, 1000])
def test_shuffled_epoch_has_each_sample_at_most_once_in_full_batches(
    world_size: int, workers: int, window: int
) -> None:
    seen = []
    for rank in range(world_size):
        order = ShuffledOrder(COUNTS, 4, 0, window, rank, world_size)
        batches = dealt(order, 3, workers)
        assert len(batches) == 61 // (4 * world_size)
        assert all(len(batch) == 4 for batch in batches)
        seen += [position for batch in batches for position in batch]
    assert len(set(seen)) == len(seen)
    assert all(0 <= position < COUNTS[shard] for shard, position in seen)


def test_shuffle_is_a_pure_function_of_seed_and_epoch() -> None:
    orders = [ShuffledOrder(COUNTS, 4, seed, 100) for seed in (0, 0, 1)]
    assert dealt(orders[0], 2, 2) == dealt(orders[1], 2, 2)
    assert dealt(orders[0], 2, 2) != dealt(orders[0], 3, 2)
    assert dealt(orders[0], 2, 2) != dealt(orders[2], 2, 2)


def test_the_remainder_differs_from_epoch_to_epoch_and_every_sample_has_its_turn() -> None:
    order = ShuffledOrder(np.array([50]), 8, 0, 10)
    everything = {(0, position) for position in range(50)}
    left_out = [
        everything - {position for batch in dealt(order, epoch, 1) for position in batch} for epoch in range(40)
    ]
    assert all(len(remainder) == 2 for remainder in left_out)
    assert len({frozenset(remainder) for remainder in left_out}) > 20
    assert len(set().union(*left_out)) > 30


def test_a_single_shard_is_mixed_over_the_ranks() -> None:
    first_rank = [
        {position for batch in dealt(ShuffledOrder(np.array([64]), 8, 0, 64, 0, 2), epoch, 1) for position in batch}
        for epoch in range(2)
    ]
    assert first_rank[0] != first_rank[1]


def test_spares_are_the_samples_left_out_then_the_worker_s_own_first() -> None:
    order = ShuffledOrder(np.array([50]), 8, 0, 100)
    share = order.share(0, 0, 1)
    used = {tuple(position) for index in range(share.batches) for position in share.batch(index).tolist()}
    spares = [tuple(share.spare(index)[0].tolist()) for index in range(3)]  # type: ignore[index]
    assert not used & set(spares[:2])
    assert spares[2] == tuple(share.batch(0)[0].tolist())


def test_a_shuffle_window_is_shuffled_as_a_whole_and_not_beyond() -> None:
    order = ShuffledOrder(np.array([100]), 10, 0, 20)
    batches = dealt(order, 0, 1)
    for start in range(0, 10, 2):
        ring = sorted(position for batch in batches[start : start + 2] for _, position in batch)
        gaps = np.diff([*ring, ring[0] + 100])
        assert sorted(gaps)[:-1] == [1] * 19


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [1, 3])
def test_sequential_order_gives_everything_once_in_order(world_size: int, workers: int) -> None:
    seen = []
    for rank in range(world_size):
        for batch in dealt(SequentialOrder(COUNTS, 4, rank, world_size), 0, workers):
            seen += batch
    assert seen == [(shard, position) for shard, count in enumerate(COUNTS) for position in range(count)]


@pytest.mark.parametrize(("total", "sizes"), [(37, [[17, 1], [18, 1]]), (36, [[18], [18]]), (40, [[18, 2], [18, 2]])])
def test_every_rank_has_the_same_number_of_batches_in_sequence(total: int, sizes: list[list[int]]) -> None:
    orders = [SequentialOrder(np.array([total]), 18, rank, 2) for rank in range(2)]
    assert [[len(batch) for batch in dealt(order, 0, 2)] for order in orders] == sizes


def test_too_few_samples_for_a_batch_are_a_mistake() -> None:
    with pytest.raises(UserMistake, match="61 training pairs do not fill one batch of 40 of each of 2 ranks"):
        ShuffledOrder(COUNTS, 40, 0, world_size=2)
