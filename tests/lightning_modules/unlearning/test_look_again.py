from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from untrigger.lightning_modules.encoders.small import SmallTokenizer
from untrigger.lightning_modules.unlearning import phases
from untrigger.lightning_modules.unlearning.captions import CaptionTokens
from untrigger.lightning_modules.unlearning.findings import BENIGN, POISONED, SUSPICIOUS, Findings
from untrigger.lightning_modules.unlearning.localisation import CompromisedTokens
from untrigger.lightning_modules.unlearning.phases import LookAgain, Naming

TOKENIZE = SmallTokenizer(32)
WORDS = ["star"] * 200 + ["ring"] * 200 + ["cube"] * 200


def token(word: str) -> int:
    return int(TOKENIZE([word])[0, 1])


def looked_again(
    falls: np.ndarray,
    pushed: np.ndarray,
    words: list[str],
    carriers: tuple[str, ...] = (),
) -> tuple[bool, Findings]:
    """What the phase makes of pairs whose similarity fell so far from 0.9, and hangs on some words besides."""
    captions = CaptionTokens(TOKENIZE)
    captions.add(TOKENIZE(WORDS))
    captions.gather()
    keys = [f"{place:03d}" for place in range(len(WORDS))]
    findings = Findings(captions, keys, {"poisoned": np.full(len(WORDS), 0.9, np.float32)})
    findings.suspicion = {"suspicion": np.zeros(len(WORDS), np.float32)}
    findings.decision = np.where(pushed, POISONED, BENIGN).astype(np.int8)
    findings.compromised = CompromisedTokens([token(word) for word in words], words, [3.0] * len(words))
    asked: list[str] = []
    restored: list[bool] = []

    def localise(ubt: Any, keys: list[str], naming: Naming, reach: float) -> CompromisedTokens:
        assert restored, "what is masked is the poisoned model's similarity"
        assert 0 < reach < 1
        asked.extend(keys)
        return CompromisedTokens([token(word) for word in carriers], [*carriers], [9.0] * len(carriers))

    ubt: Any = SimpleNamespace(findings=findings, restore=lambda: restored.append(True))
    phase = LookAgain(0.7, 0.6, 0.25, Naming(pairs=15, min_share=0.1, min_lift=2.0))
    phase.begin(ubt)
    phase._scores.add(keys, {"forgotten": torch.from_numpy(0.9 - falls)})
    with patch.object(phases, "localise", localise):
        alarm = phase.end(ubt) is not None
    assert len(asked) == (15 if alarm else 0)
    assert set(asked) <= set(findings.keys_of(findings.having(POISONED)))
    return alarm, findings


def benign(falls: np.random.Generator) -> np.ndarray:
    return falls.normal(0.05, 0.02, len(WORDS)).astype(np.float32)


def test_each_token_is_judged_by_its_own_captions() -> None:
    random = np.random.default_rng(0)
    falls, pushed = benign(random), np.zeros(len(WORDS), dtype=bool)
    falls[:40] = random.normal(0.6, 0.05, 40)  # stars with a trigger
    pushed[:10] = True
    pushed[200:230] = True  # rings without one: nothing goes along with them
    falls[200:230] = 0.7
    alarm, findings = looked_again(falls, pushed, ["ring", "star"])
    assert alarm
    assert findings.compromised.words == ["star"]
    poisoned, doubtful = findings.having(POISONED), findings.having(SUSPICIOUS)
    assert set(poisoned) <= set(range(40))
    assert len(poisoned) >= 15
    assert set(range(40)) <= set(poisoned) | set(doubtful)
    assert not findings.decision[200:].any()
    assert findings.figures["split"] > 0.9
    assert findings.figures["transfer"] == pytest.approx(1, abs=0.1)


def test_what_else_carries_the_poisoned_pairs_is_compromised_too() -> None:
    random = np.random.default_rng(0)
    falls, pushed = benign(random), np.zeros(len(WORDS), dtype=bool)
    falls[:40] = random.normal(0.6, 0.05, 40)
    pushed[:10] = True
    falls[200:210] = 0.3  # rings that fell a little
    alarm, findings = looked_again(falls, pushed, ["star"], carriers=("ring", "star"))
    assert alarm
    assert findings.compromised.words == ["star", "ring"]
    assert findings.compromised.lifts == [3.0, 9.0]
    assert set(findings.having(POISONED)) <= set(range(40))
    # A quarter of the rings, those that fell furthest, are retained no more.
    rings = [place for place in findings.having(SUSPICIOUS) if place >= 200]
    assert len(rings) == 50
    assert set(range(200, 210)) <= set(rings) <= set(range(200, 400))


def test_where_nothing_goes_along_nothing_is_suspicious() -> None:
    falls, pushed = benign(np.random.default_rng(1)), np.zeros(len(WORDS), dtype=bool)
    pushed[:30] = True
    falls[:30] = 0.7
    alarm, findings = looked_again(falls, pushed, ["star", "ring"])
    assert not alarm
    assert findings.compromised.words == []
    assert not findings.decision.any()
    assert findings.figures["transfer"] < 0.2


def test_a_token_that_nobody_was_pushed_from_is_not_compromised() -> None:
    random = np.random.default_rng(2)
    falls, pushed = benign(random), np.zeros(len(WORDS), dtype=bool)
    falls[:40] = 0.6
    alarm, findings = looked_again(falls, pushed, ["star"])
    assert not alarm
    assert findings.figures["transfer"] == 0
