from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from untrigger.key_list import KeyList
from untrigger.lightning_modules.encoders.small import SmallTokenizer
from untrigger.lightning_modules.ubt.findings import BENIGN, POISONED, SUSPICIOUS, Findings, Turn, most, sample
from untrigger.lightning_modules.words.captions import CaptionTokens
from untrigger.lightning_modules.words.words import Words

TOKENIZE = SmallTokenizer(32)


def test_most_is_the_highest_first_and_nan_last() -> None:
    scores = np.array([1, np.nan, 3, 3, 2], np.float32)
    assert most(scores, 4).tolist() == [2, 3, 4, 0]
    assert most(scores, 9).tolist() == [2, 3, 4, 0, 1]
    assert most(scores, 0).tolist() == most(scores, -1).tolist() == []


def test_a_sample_is_drawn_by_its_seed_without_putting_back() -> None:
    indices = np.arange(100, 200)
    drawn = sample(indices, 30, 1, 2)
    assert len(set(drawn.tolist())) == 30
    assert set(drawn.tolist()) <= set(indices.tolist())
    assert np.array_equal(drawn, sample(indices, 30, 1, 2))
    assert not np.array_equal(drawn, sample(indices, 30, 1, 3))
    assert np.array_equal(sample(indices, 100, 1), indices)


def some() -> Findings:
    findings = Findings(CaptionTokens(TOKENIZE), Words([[7], [9, 8]], ["star", "\x1b[31mring"], [["a star"], ["ring"]]))
    findings.captions.add(TOKENIZE(["a star", "ring", "nothing"]))
    findings.keys = KeyList(["a", "b", "c"])
    findings.seen = {"poisoned": np.array([1, 2, np.nan], np.float32), "poisoned/word": np.array([0, 1, 1], np.float32)}
    findings.suspicion = {"DetailMargin": np.arange(6, dtype=np.float32)[::2]}
    findings.decision = np.array([BENIGN, POISONED, SUSPICIOUS], np.int8)
    findings.poisoned_with = np.array([-1, 1, -1], np.int16)
    findings.compromised, findings.about = [1], "verify 2"
    findings.turn = Turn(3, {4: "DetailMargin", 1: "other"}, True, 2)
    findings.verdicts = [{"round": 0, "word": "star", "p": 0.5, "found": False}]
    return findings


def test_the_state_is_plain_and_brings_everything_back(tmp_path: Path) -> None:
    findings, again = some(), Findings(CaptionTokens(TOKENIZE))
    torch.save(findings.state_dict(), tmp_path / "state.pt")
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for name in ("keys", "words", "compromised", "about", "verdicts", "compromised_words", "turn"):
        assert getattr(again, name) == getattr(findings, name), name
    for name in ("seen", "suspicion"):
        one, other = getattr(findings, name), getattr(again, name)
        assert list(one) == list(other)
        assert all(np.array_equal(one[key], other[key], equal_nan=True) for key in one)
    for name in ("decision", "poisoned_with"):
        assert np.array_equal(getattr(again, name), getattr(findings, name))
        assert getattr(again, name).dtype == getattr(findings, name).dtype
    assert np.array_equal(again.captions.shares(), findings.captions.shares())


def test_a_state_of_before_words_were_probed_gently_is_read() -> None:
    state = some().state_dict()
    del state["gently"]
    again = Findings(CaptionTokens(TOKENIZE))
    again.load_state_dict(state)
    assert again.turn == Turn(3, {4: "DetailMargin", 1: "other"}, False, 2)


def test_the_state_of_a_run_that_has_just_begun_is_empty(tmp_path: Path) -> None:
    torch.save(Findings(CaptionTokens(TOKENIZE)).state_dict(), tmp_path / "state.pt")
    again = Findings(CaptionTokens(TOKENIZE))
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (again.keys, again.about, len(again.words), again.decision.size) == ([], "", 0, 0)


@pytest.mark.parametrize(("decision", "keys"), [(BENIGN, ["a"]), (SUSPICIOUS, ["c"]), (POISONED, ["b"])])
def test_pairs_are_had_by_their_decision(decision: int, keys: list[str]) -> None:
    findings = some()
    assert findings.keys_of(findings.having(decision)) == keys


def test_the_account_is_safe_to_print() -> None:
    findings = some()
    assert findings.compromised_words == ["\x1b[31mring"]
    reported = findings.account()
    assert reported.startswith("1 pairs to unlearn, 1 suspicious, 1 benign; compromised: ")
    assert "\x1b" not in reported
    findings.about = ""
    assert findings.account() == "3 pairs, 2 words"
    findings.about, findings.compromised = "verify", []
    assert findings.account().endswith("compromised: nothing")
