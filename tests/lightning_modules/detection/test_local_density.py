from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.detection import LocalDensity, local_density


def unit(count: int, width: int, seed: int) -> Tensor:
    return functional.normalize(torch.randn(count, width, generator=torch.manual_seed(seed)), dim=1)


def by_hand(points: Tensor, reference: list[int], k: int) -> tuple[list[float], list[float], list[float]]:
    """The definitions, one pair at a time, in double precision; nobody is a neighbour of its own."""
    x = points.double().numpy()

    def nearest(i: int) -> list[tuple[float, int]]:
        return sorted((float(np.linalg.norm(x[i] - x[j])), j) for j in reference if j != i)[:k]

    def dimension(j: int) -> float:
        distances = [distance for distance, _ in nearest(j)]
        return -1 / float(np.mean([np.log(distance / distances[-1]) for distance in distances]))

    k_distance = [nearest(i)[-1][0] for i in range(len(x))]
    slof = [float(np.mean([k_distance[i] / k_distance[j] for _, j in nearest(i)])) for i in range(len(x))]
    dao = [
        float(np.log(np.mean([(k_distance[i] / k_distance[j]) ** dimension(j) for _, j in nearest(i)])))
        for i in range(len(x))
    ]
    return k_distance, slof, dao


def test_the_scores_are_the_definitions_over_all_pairs() -> None:
    points = unit(40, 5, 0)
    expected = by_hand(points, list(range(40)), 4)
    found = local_density(points, neighbours=4, reference_size=100, block=7)
    for scores, wanted in zip(found, expected, strict=True):
        assert scores.tolist() == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_neighbours_are_looked_for_in_a_part_of_the_pairs_alone() -> None:
    points = unit(60, 5, 1)
    chosen = np.random.default_rng(3).permutation(60)[:20].tolist()
    expected = by_hand(points, chosen, 4)
    found = local_density(points, neighbours=4, reference_size=20, seed=3, block=9)
    # A neighbour's own distance and dimension are within the reference, where by_hand looks too.
    for scores, wanted in zip(found, expected, strict=True):
        assert scores.tolist() == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_blocks_make_no_difference() -> None:
    points = unit(50, 6, 2)
    once, often = local_density(points, 3, 30, block=50), local_density(points, 3, 30, block=1)
    for one, other in zip(once, often, strict=True):
        torch.testing.assert_close(one, other)


def share_of_pairs_in_order(suspect: Tensor, benign: Tensor) -> float:
    return float((suspect[:, None] > benign[None, :]).float().mean())


def planted(benign: int, poisoned: int) -> Tensor:
    """Clean embeddings in a few clusters, and poisoned ones close together, away from all."""
    centres = unit(5, 32, 3)
    generator = torch.manual_seed(4)
    spread = centres[torch.arange(benign) % 5] + 0.08 * torch.randn(benign, 32, generator=generator)
    cluster = unit(1, 32, 9) + 0.03 * torch.randn(poisoned, 32, generator=generator)
    return functional.normalize(torch.cat([cluster, spread]), dim=1)


def test_a_planted_cluster_stands_out_while_the_reference_has_less_of_it_than_neighbours() -> None:
    points = planted(2000, 20)
    for scores in local_density(points, neighbours=16, reference_size=512):
        assert share_of_pairs_in_order(scores[:20], scores[20:]) > 0.99
    # Among more of its own kind it is dense, as the docstring says.
    crowded = local_density(planted(2000, 200), neighbours=16, reference_size=4096)
    assert share_of_pairs_in_order(crowded.k_distance[:200], crowded.k_distance[200:]) < 0.5


def test_equal_pictures_give_finite_scores() -> None:
    points = torch.cat([unit(1, 4, 5).expand(20, 4), unit(10, 4, 6)])
    for scores in local_density(points, neighbours=4):
        assert torch.isfinite(scores).all()


def test_mistakes_are_one_line() -> None:
    with pytest.raises(UserMistake, match="4 embeddings are too few for local density with 4 neighbours; it takes"):
        LocalDensity(unit(4, 3, 0), 4)
    with pytest.raises(UserMistake, match="at least 1 neighbour"):
        LocalDensity(unit(4, 3, 0), 0)
    broken = unit(8, 3, 0)
    broken[3, 0] = torch.nan
    with pytest.raises(UserMistake, match="not finite"):
        local_density(broken, 2)
