from __future__ import annotations

import numpy as np
import pytest
import torch

from untrigger.lightning_modules.encoders.small import SmallTokenizer
from untrigger.lightning_modules.unlearning.captions import CaptionTokens
from untrigger.lightning_modules.unlearning.findings import (
    BENIGN,
    POISONED,
    SUSPICIOUS,
    Findings,
    Suspects,
    divide,
    most,
    sample,
)
from untrigger.lightning_modules.unlearning.localisation import CompromisedTokens

TOKENIZE = SmallTokenizer(32)


@pytest.mark.parametrize(("share", "suspicious"), [(0.0, []), (0.2, [4]), (0.5, [4, 1]), (0.9, [4, 1, 5, 2])])
def test_the_most_suspicious_of_the_group_are_left_out(share: float, suspicious: list[int]) -> None:
    group = np.array([True, True, True, False, True, True])
    suspicion = np.array([0.4, 0.6, np.nan, 0.9, 0.8, 0.2], np.float32)
    poisoned = np.array([True, False, False, False, False, False])
    expected = np.full(6, BENIGN)
    expected[suspicious] = SUSPICIOUS
    expected[0] = POISONED
    assert divide(group, suspicion, poisoned, share).tolist() == expected.tolist()


def test_without_a_group_all_is_benign() -> None:
    none = np.zeros(3, dtype=bool)
    assert divide(none, np.zeros(3, np.float32), none, 0.5).tolist() == [BENIGN] * 3


def test_most_is_the_highest_first_and_nan_last() -> None:
    assert most(np.array([1, np.nan, 3, 3, 2], np.float32), 4).tolist() == [2, 3, 4, 0]


def test_a_sample_is_drawn_by_its_seed_without_putting_back() -> None:
    places = np.arange(100, 200)
    drawn = sample(places, 30, 1, 2)
    assert len(set(drawn.tolist())) == 30
    assert set(drawn.tolist()) <= set(places.tolist())
    assert np.array_equal(drawn, sample(places, 30, 1, 2))
    assert not np.array_equal(drawn, sample(places, 30, 1, 3))
    assert np.array_equal(sample(places, 100, 1), places)


def test_the_state_is_plain_and_brings_everything_back(tmp_path: object) -> None:
    findings = Findings(CaptionTokens(TOKENIZE), ["a", "b"], {"poisoned": np.array([1, 2], np.float32)})
    findings.captions.add(TOKENIZE(["a star", "ring"]))
    findings.suspicion = {"suspicion": np.array([0, 1], np.float32)}
    findings.decision = np.array([0, 2], np.int8)
    findings.compromised = CompromisedTokens([7], ["star"], [3.5])
    findings.about, findings.tried = "suspect", 1
    findings.untried = [
        Suspects({"suspicion": np.array([1, 0], np.float32)}, np.array([2, 0], np.int8), findings.compromised)
    ]
    path = f"{tmp_path}/state.pt"
    torch.save(findings.state_dict(), path)
    again = Findings(CaptionTokens(TOKENIZE))
    again.load_state_dict(torch.load(path, weights_only=True))
    assert (again.keys, again.about, again.compromised) == (["a", "b"], "suspect", findings.compromised)
    assert again.seen["poisoned"].tolist() == [1, 2]
    assert list(again.suspicion) == ["suspicion"]
    assert again.decision.tolist() == [0, 2]
    assert again.keys_of(again.having(POISONED)) == ["b"]
    assert again.try_next()
    assert again.keys_of(again.having(POISONED)) == ["a"]
    assert again.about == "suspect 2"
    assert not again.try_next()
    assert np.array_equal(again.captions.shares(), findings.captions.shares())
