from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.encoders import build_encoder
from untrigger.lightning_modules.screening import BackdoorIDS, BDetCLIP, ClassTexts, FrozenCLIP, SubspaceDetection
from untrigger.lightning_modules.screening.backdoor_ids import split_distance
from untrigger.lightning_modules.screening.bdetclip import _UNRELATED
from untrigger.lightning_modules.screening.subspace import region_of_interest

TEXTS = ClassTexts(["tomato", "sea", "plum"], ["a photo of a {c}.", "the {c}", "one small {c}.", "{c}, seen from afar"])


@pytest.fixture(scope="module")
def model() -> FrozenCLIP:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return FrozenCLIP(build_encoder("small:nano-32").eval())


def shown(model: FrozenCLIP, count: int = 4) -> tuple[Tensor, Tensor]:
    pictures = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    normalised = model.normalised(pictures)
    return normalised, model.images(normalised)


def unit(points: list[list[float]]) -> Tensor:
    return functional.normalize(torch.tensor(points), dim=1)


def test_the_score_of_a_picture_hangs_on_no_other(model: FrozenCLIP) -> None:
    pictures, features = shown(model)
    for detector in (BDetCLIP(model, TEXTS), SubspaceDetection(model, TEXTS), BackdoorIDS(model, copies=5)):
        together = detector.score(pictures, features)
        assert together.shape == (4,)
        alone = torch.cat([detector.score(pictures[[row]], features[[row]]) for row in range(4)])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_bdetclip_is_what_the_similarities_to_the_classes_lose(model: FrozenCLIP) -> None:
    detector = BDetCLIP(model, TEXTS)
    pictures, features = shown(model)
    expected = torch.zeros(4)
    for name in TEXTS.classnames:
        plain = [template.replace("{c}", name) for template in TEXTS.templates]
        spoilt = [f"{text.rstrip('.')}, {words}" for text, words in zip(plain, _UNRELATED, strict=False)]
        for text, sign in ((plain, -1), (spoilt, 1)):
            expected += sign * functional.cosine_similarity(features, model.texts(text).mean(dim=0)[None])
    torch.testing.assert_close(detector.score(pictures, features), expected)
    assert expected.abs().min() > 1e-3
    with pytest.raises(UserMistake, match="name at least two"):
        BDetCLIP(model, TEXTS._replace(classnames=["tomato"]))


def test_a_region_lies_beyond_the_variants_as_seen_from_the_text() -> None:
    text, variants = unit([[1.0, 0.0, 0.0, 0.0]]), unit([[1.0, 0.3, 0.1, 0.0], [1.0, 0.3, -0.1, 0.0]])
    texts = torch.cat([text, variants])
    region = region_of_interest(texts, torch.Generator().manual_seed(0))
    assert region.shape == (15, 4)
    assert region[:, 1].min() > variants[:, 1].max() - 0.02
    assert region[:, 3].abs().max() < 1e-5  # nothing of them points there
    ratios = functional.cosine_similarity(region, text) / functional.cosine_similarity(variants, text).mean()
    assert ((ratios > 0.85) & (ratios < 1)).all()
    torch.testing.assert_close(region, region_of_interest(texts, torch.Generator().manual_seed(0)))
    same = region_of_interest(text.repeat(3, 1), torch.Generator().manual_seed(0))
    torch.testing.assert_close(same, text.repeat(15, 1))


def test_a_picture_of_the_words_alone_is_further_than_one_of_what_they_mean(model: FrozenCLIP) -> None:
    detector = SubspaceDetection(model, TEXTS)
    of_class = torch.stack([model.texts(TEXTS.filled(template)) for template in TEXTS.templates])
    words = of_class[0]
    meaning = functional.normalize(detector.regions.mean(dim=1), dim=1)
    detector.classes = meaning  # each of these pictures is taken for its own class
    pictures = torch.zeros(3, 3, 32, 32)
    near, far = detector.score(pictures, meaning), detector.score(pictures, words)
    assert (near < far).all()
    expected = (words[1] - detector.regions[1]).square().sum(dim=1).mean()
    torch.testing.assert_close(far[1], expected)
    with pytest.raises(UserMistake, match="give at least two templates"):
        SubspaceDetection(model, TEXTS._replace(templates=["a {c}"]))


def test_two_groups_of_embeddings_are_as_far_apart_as_their_nearest_members() -> None:
    angles = torch.tensor(
        [[0.0, 0.1, 0.2, 1.2, 1.3, 1.4], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0, 1.5]]
    )
    features = torch.stack([angles.cos(), angles.sin()], dim=2).numpy()
    jumps, smooth, alone = split_distance(features, 2)
    assert jumps == pytest.approx(1 - np.cos(1.0), rel=1e-4)
    assert smooth == pytest.approx(1 - np.cos(0.2), rel=1e-3)
    assert alone == pytest.approx(0, abs=1e-6)  # one copy is no group
    assert split_distance(features, 1)[2] == pytest.approx(1 - np.cos(1.5), rel=1e-4)


def test_what_embeds_as_no_number_is_far_from_everything() -> None:
    features = np.tile(np.array([1.0, 0.0], np.float32), (1, 6, 1))
    features[:, 4:] = np.nan
    assert split_distance(features, 1).tolist() == [2.0]
    assert split_distance(features, 2).tolist() == [0.0]  # each of them alone


def test_a_mask_only_grows_and_ends_where_it_should(model: FrozenCLIP) -> None:
    detector = BackdoorIDS(model, copies=9, largest=0.5)
    shares = 1 - detector.kept.mean(dim=(1, 2))
    torch.testing.assert_close(shares, torch.linspace(0, 0.5, 9))
    assert (detector.kept[1:] <= detector.kept[:-1]).all()


def test_masked_copies_are_the_picture_in_its_mean_colour(model: FrozenCLIP) -> None:
    pictures, features = shown(model, 2)
    detector = BackdoorIDS(model, copies=4)
    seen = []
    detector.model = FrozenCLIP(model.encoder)
    detector.model.images = lambda batch: seen.append(batch) or model.images(batch)  # type: ignore[method-assign,func-returns-value]
    detector.score(pictures, features)
    assert len(seen) == 3  # the picture itself was encoded already
    mask = functional.interpolate(detector.kept[None, 1:2], size=(32, 32))[0]
    torch.testing.assert_close(seen[0], pictures * mask)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"copies": 3}, "no two groups of 2"), ({"largest": 1.0}, r"not in \(0, 1\)")]
)
def test_settings_out_of_range_are_refused(model: FrozenCLIP, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(UserMistake, match=message):
        BackdoorIDS(model, **arguments)  # type: ignore[arg-type]
