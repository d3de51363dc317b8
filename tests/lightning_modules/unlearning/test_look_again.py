from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from untrigger.lightning_modules.encoders.small import SmallTokenizer
from untrigger.lightning_modules.unlearning.captions import CaptionTokens
from untrigger.lightning_modules.unlearning.findings import BENIGN, POISONED, SUSPICIOUS, Findings
from untrigger.lightning_modules.unlearning.localisation import CompromisedTokens
from untrigger.lightning_modules.unlearning.phases import LookAgain

TOKENIZE = SmallTokenizer(32)
WORDS = ["star"] * 200 + ["ring"] * 200 + ["cube"] * 200


def looked_again(falls: np.ndarray, pushed: np.ndarray, words: list[str]) -> tuple[bool, Findings]:
    """What the phase makes of pairs whose similarity fell so far from 0.9."""
    captions = CaptionTokens(TOKENIZE)
    captions.add(TOKENIZE(WORDS))
    captions.gather()
    keys = [f"{place:03d}" for place in range(len(WORDS))]
    findings = Findings(captions, keys, {"poisoned": np.full(len(WORDS), 0.9, np.float32)})
    findings.suspicion = {"suspicion": np.zeros(len(WORDS), np.float32)}
    findings.decision = np.where(pushed, POISONED, BENIGN).astype(np.int8)
    tokens = [int(row[1]) for row in TOKENIZE(words)]
    findings.compromised = CompromisedTokens(tokens, words, [3.0] * len(words))
    ubt: Any = SimpleNamespace(findings=findings)
    phase = LookAgain(min_split=0.7, min_transfer=0.6, doubtful_share=0.25)
    phase.begin(ubt)
    phase._scores.add(keys, {"forgotten": torch.from_numpy(0.9 - falls)})
    return phase.end(ubt), findings


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
