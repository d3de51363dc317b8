from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from untrigger.lightning_modules.detection import activation_clustering, spectral_signatures


def group(size: int, odd: int, dimension: int = 12, seed: int = 0) -> Tensor:
    """Features about a centre; the first ones are shifted by the same vector."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(1, dimension, generator=generator) + 0.1 * torch.randn(size, dimension, generator=generator)
    features[:odd] += torch.randn(1, dimension, generator=generator)
    return functional.normalize(features, dim=1)


def test_the_score_is_the_squared_projection_on_the_first_singular_vector() -> None:
    features = group(50, 5)
    (scores,) = (spectral_signatures(features, [torch.arange(50)]),)
    centred = features.double().numpy() - features.double().numpy().mean(axis=0)
    _, _, vectors = np.linalg.svd(centred)
    np.testing.assert_allclose(scores.numpy(), (centred @ vectors[0]) ** 2, rtol=1e-4)


def test_each_group_is_looked_at_by_itself() -> None:
    both = torch.cat([group(40, 4), group(60, 0, seed=1)])
    first, second = torch.arange(40), torch.arange(40, 100)
    scores = spectral_signatures(both, [first, second])
    torch.testing.assert_close(scores[:40], spectral_signatures(both[:40], [first]))
    assert set(scores[:40].topk(4).indices.tolist()) == {0, 1, 2, 3}


def test_of_several_groups_the_highest_counts_and_of_none_there_is_no_score() -> None:
    features = group(30, 3)
    groups = [torch.arange(20), torch.arange(10, 29), torch.tensor([29])]
    for ask in (spectral_signatures, activation_clustering):
        alone = [ask(features, [each]) for each in groups[:2]]
        scores = ask(features, groups)
        assert scores[29:].isnan().all()
        torch.testing.assert_close(scores[:29], torch.fmax(*alone)[:29])


def test_the_smaller_of_two_clusters_is_suspected_by_its_size() -> None:
    features = group(100, 10)
    scores = activation_clustering(features, [torch.arange(100)])
    torch.testing.assert_close(scores[:10], torch.full((10,), 0.9))
    assert (scores[10:] == 0).all()


def test_two_clusters_of_like_size_are_no_suspicion() -> None:
    features = group(100, 40)
    assert (activation_clustering(features, [torch.arange(100)]) == 0).all()
    assert (activation_clustering(features, [torch.arange(100)], largest_share=0.5)[:40] > 0.5).all()


def test_features_that_are_all_alike_are_no_suspicion() -> None:
    features = torch.ones(20, 4) / 2
    for ask in (spectral_signatures, activation_clustering):
        torch.testing.assert_close(ask(features, [torch.arange(20)]), torch.zeros(20))
