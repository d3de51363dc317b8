from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from untrigger.lightning_modules.encoders import build_encoder
from untrigger.lightning_modules.invertune.neurons import (
    candidate_layers,
    halves,
    higher_cluster,
    most_changed,
    relative_change,
    watched,
)


@pytest.mark.parametrize(
    ("encoder", "layers"),
    [
        ("small:nano-32", ["stages.3", "stages.7", "stages.12"]),
        ("small:base-32", ["stages.4", "stages.9", "stages.14"]),
        ("open_clip:RN50", ["layer1", "layer2", "layer3", "layer4"]),
        ("open_clip:ViT-B-32", [f"transformer.resblocks.{number}" for number in range(12)]),
    ],
)
def test_layers_are_stages_or_blocks(encoder: str, layers: list[str]) -> None:
    model = build_encoder(encoder).eval()
    assert candidate_layers(model.image_tower) == layers
    images = torch.randn(4, 3, model.image_size, model.image_size)
    with torch.no_grad(), watched(model.image_tower, layers) as answers:
        model.encode_image(images)
        assert list(answers) == layers
        clean, triggered = halves(answers[layers[-1]], 2)
        together = dict(answers)
        model.encode_image(images[:2])
    assert clean.shape == triggered.shape == together[layers[-1]].shape[1:]
    torch.testing.assert_close(clean, answers[layers[-1]].mean(dim=0), rtol=1e-3, atol=1e-4)
    model.encode_image(images)
    assert len(answers[layers[0]]) == 2, "the hooks are gone"


def test_a_tower_without_layers_has_none() -> None:
    assert candidate_layers(nn.Linear(3, 4)) == []


def test_pictures_may_come_second() -> None:
    answer = torch.randn(6, 5, 2, generator=torch.Generator().manual_seed(0))
    for one, other in zip(halves(answer, 3), halves(answer.transpose(0, 1), 3), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(halves(answer, 3)[1], answer[3:].mean(dim=0))


def test_layers_are_ranked_by_what_changes_of_their_length() -> None:
    clean = {"small": torch.tensor([1.0, 0.0]), "large": torch.tensor([0.0, 100.0]), "none": torch.ones(2)}
    triggered = {"small": torch.tensor([1.0, 0.5]), "large": torch.tensor([3.0, 104.0]), "none": torch.ones(2)}
    assert relative_change(clean["small"], triggered["small"]) == 0.5
    assert relative_change(clean["large"], triggered["large"]) == pytest.approx(0.05)
    assert most_changed(clean, triggered, 2) == ["small", "large"]


@pytest.mark.parametrize(
    ("values", "above"),
    [
        ([0.0, 0.1, 5.0, 0.2, 6.0], [False, False, True, False, True]),
        # The middle between the ends is 5, where the clusters part only at first.
        ([0.0, 3.0, 3.5, 4.0, 10.0], [False, False, False, False, True]),
        ([0.0, 6.0, 6.0, 6.0, 10.0], [False, True, True, True, True]),
        ([2.0, 2.0], [True, True]),
    ],
)
def test_the_higher_of_two_clusters(values: list[float], above: list[bool]) -> None:
    found = higher_cluster(torch.tensor(values).view(1, -1))
    assert found.tolist() == [above]
    assert _spread(torch.tensor(values), found[0]) <= min(
        _spread(torch.tensor(values), torch.tensor(values) >= cut) for cut in values
    )


def _spread(values: Tensor, above: Tensor) -> float:
    """Squared distances to the mean of one's own cluster: what 2-means makes small."""
    parts = [part for part in (values[above], values[~above]) if len(part)]
    return float(sum((part - part.mean()).square().sum() for part in parts)) - 1e-5
