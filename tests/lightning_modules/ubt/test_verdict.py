from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from untrigger.lightning_modules.ubt.candidates import Judged
from untrigger.lightning_modules.ubt.findings import BENIGN, POISONED, SUSPICIOUS
from untrigger.lightning_modules.ubt.options import ProbeOptions
from untrigger.lightning_modules.ubt.verdict import (
    Judgement,
    WordVerdict,
    accused,
    divide,
    judge,
    most_suspected,
    standing_out,
)

SUSPECTS, OTHERS, WORDS = 16, 64, 10
USUAL = ProbeOptions()
NOTHING = WordVerdict(
    3, "one", moved=0.0, moved_others=0.0, p=1.0, variety=0.0, fall=0.0, excess=0.0, fell_by="one", found=False
)


class Probed:
    """Words of which a probe has something to say: nobody has moved and nothing has fallen, unless it is told so."""

    def __init__(self, words: int = WORDS, evidence: tuple[str, ...] = ("one",)) -> None:
        self.words, each = words, SUSPECTS + OTHERS
        self.before = np.repeat(np.arange(words), each)
        self.after = self.before.copy()
        self.fall = np.full(words * each, 0.01, np.float32)
        starts = np.arange(words) * each
        self.judged = [
            Judged(
                word,
                name,
                np.arange(start, start + SUSPECTS),
                np.arange(start + SUSPECTS, start + each),
                np.zeros(0, int),
                np.zeros(0, int),
            )
            for word, start in enumerate(starts.tolist())
            for name in evidence
        ]

    def move(self, word: int, to: list[int], fall: float = 0.4, others: bool = False) -> None:
        """Some suspects of a word, or some of its ordinary pairs, go to other words."""
        judged = self.judged[word * len(self.judged) // self.words]
        indices = (judged.others if others else judged.pairs)[: len(to)]
        self.after[indices], self.fall[indices] = to, fall

    def judge(self, **options: Any) -> dict[int, WordVerdict]:
        asked = Judgement(USUAL.significance, USUAL.min_moved, USUAL.min_variety)
        shares = {"one": 0.0, "blind": 0.0, "other": 0.0} | options.pop("shares", {})
        frequencies = np.full(self.words, SUSPECTS + OTHERS)
        verdicts = judge(
            self.judged, self.fall, self.before, self.after, frequencies, asked._replace(**options), shares
        )
        assert len({verdict.word for verdict in verdicts}) == len(verdicts)
        return {verdict.word: verdict for verdict in verdicts}


def found(verdicts: dict[int, WordVerdict]) -> set[int]:
    return {word for word, verdict in verdicts.items() if verdict.found}


def test_a_backdoor_is_found_where_what_was_not_pushed_goes_back_to_many_words() -> None:
    probed = Probed()
    probed.move(3, [index % WORDS for index in range(SUSPECTS) if index % WORDS != 3])
    probed.move(3, [5], others=True)
    verdicts = probed.judge()
    assert found(verdicts) == {3}
    assert set(verdicts) == set(range(WORDS))
    verdict = verdicts[3]
    assert (verdict.moved, verdict.moved_others) == (14 / SUSPECTS, 1 / OTHERS)
    assert 0 < verdict.p < 1e-9
    assert verdict.fall == pytest.approx((14 * 0.4 + 2 * 0.01) / SUSPECTS, rel=1e-5)
    assert verdict.variety > 7
    assert verdicts[0].p == 1
    assert verdicts[0].moved == verdicts[0].variety == 0


def test_near_duplicates_that_all_go_to_one_neighbour_are_no_backdoor() -> None:
    probed = Probed()
    probed.move(3, [4] * SUSPECTS, fall=0.9)
    verdicts = probed.judge()
    assert verdicts[3].moved == 1
    assert verdicts[3].p < 1e-6
    assert verdicts[3].variety == pytest.approx(1)
    assert not found(verdicts)


def test_a_word_whose_ordinary_pairs_move_as_well_is_no_backdoor() -> None:
    probed = Probed()
    probed.move(3, [index % 3 for index in range(SUSPECTS)])
    probed.move(3, [index % 3 for index in range(OTHERS)], others=True)
    verdicts = probed.judge()
    assert verdicts[3].p == pytest.approx(1)
    assert not found(verdicts)


def test_the_next_suspects_speak_too_where_they_move_with_the_foremost() -> None:
    probed = Probed()
    probed.move(3, [1, 2, 4, 5, 6, 7, 8, 9])
    alone = probed.judge()[3]
    last = WORDS * (SUSPECTS + OTHERS)
    following = np.arange(last, last + SUSPECTS)
    probed.before, probed.after = (np.append(each, np.full(SUSPECTS, 3)) for each in (probed.before, probed.after))
    probed.fall = np.append(probed.fall, np.full(SUSPECTS, 0.01, np.float32))
    probed.judged[3] = probed.judged[3]._replace(next=following)
    # They stay, so the foremost alone say more; it is one test more, of one word.
    assert probed.judge()[3].p == pytest.approx(alone.p * (WORDS + 1) / WORDS)
    probed.after[following[:10]] = [1, 2, 4, 5, 6, 7, 8, 9, 1, 2]
    verdict = probed.judge()[3]
    assert verdict.p < alone.p / 100
    assert verdict.moved == 18 / (2 * SUSPECTS)


def test_a_least_share_of_variety_is_asked_whatever_the_evidence() -> None:
    probed = Probed()
    probed.move(3, [1, 2, 4] * 5)
    assert found(probed.judge()) == {3}
    assert probed.judge()[3].fell_by == "one"
    judged = judge(
        *(probed.judged, probed.fall, probed.before, probed.after, np.full(WORDS, SUSPECTS + OTHERS)),
        *(Judgement(USUAL.significance, USUAL.min_moved, USUAL.min_variety), {"one": 0.0}, 0.5),
    )
    assert not any(verdict.found for verdict in judged)
    assert {verdict.fell_by for verdict in judged} == {"one"}, "which is another question"


def test_several_words_may_hide_a_backdoor() -> None:
    probed = Probed()
    for word in (2, 7):
        probed.move(word, [index for index in range(WORDS) if index != word])
    assert found(probed.judge()) == {2, 7}


@pytest.mark.parametrize(("words", "to"), [(2, [1] * SUSPECTS), (3, [1, 2] * (SUSPECTS // 2))])
def test_with_few_words_there_are_few_to_go_to(words: int, to: list[int]) -> None:
    probed = Probed(words)
    probed.move(0, to)
    assert found(probed.judge()) == {0}


def test_pairs_whose_best_word_was_not_their_own_do_not_count() -> None:
    probed = Probed()
    probed.move(3, list(range(3)) * 5)
    probed.before[probed.before == 3] = 5  # nobody's best word was their own
    verdicts = probed.judge()
    assert not found(verdicts)
    assert verdicts[3] == NOTHING
    probed.before[probed.judged[3].pairs[:6]] = 3
    assert probed.judge()[3].moved == 1


def test_pairs_that_could_not_be_read_do_not_count() -> None:
    probed = Probed()
    probed.move(3, [index % WORDS for index in range(SUSPECTS) if index % WORDS != 3])
    unread = probed.judged[3].pairs[:4]
    probed.fall[unread] = np.nan
    probed.after[unread] = -1
    verdict = probed.judge()[3]
    assert verdict.moved == 10 / 12
    assert verdict.fall == pytest.approx((10 * 0.4 + 2 * 0.01) / 12, rel=1e-5)
    probed.fall[:] = np.nan
    verdicts = probed.judge()
    assert not found(verdicts)
    assert [verdict._replace(word=3) for verdict in verdicts.values()] == [NOTHING] * WORDS


def test_a_word_is_told_by_the_evidence_that_speaks_most_against_it() -> None:
    probed = Probed(evidence=("blind", "one"))
    indices = np.arange(SUSPECTS) + SUSPECTS  # the first ordinary pairs of the first word
    probed.judged[1] = probed.judged[1]._replace(pairs=indices, others=probed.judged[1].others[SUSPECTS:])
    probed.after[indices] = [index % WORDS for index in range(1, SUSPECTS + 1)]
    verdicts = probed.judge()
    assert found(verdicts) == {0}
    assert verdicts[0].evidence == "one"
    # One test more for each piece of evidence.
    alone = Probed()
    alone.judged[0] = alone.judged[0]._replace(pairs=indices, others=alone.judged[0].others[SUSPECTS:])
    alone.after[indices] = probed.after[indices]
    assert verdicts[0].p == pytest.approx(2 * alone.judge()[0].p, rel=1e-9)


def test_most_of_the_suspects_have_to_move() -> None:
    probed = Probed()
    probed.move(3, [0, 1, 2, 4, 5, 6, 7])
    verdict = probed.judge()[3]
    assert verdict.p < 1e-4
    assert verdict.variety == pytest.approx(7)
    assert not found({3: verdict})
    assert found(probed.judge(min_moved=7 / SUSPECTS)) == {3}


def test_where_ordinary_pairs_go_too_it_counts_that_suspects_go_elsewhere() -> None:
    probed = Probed()
    probed.move(3, [4] * (OTHERS // 2), others=True)
    probed.move(3, [4] * SUSPECTS)
    same = probed.judge(min_variety=0.5)[3]
    probed.move(3, [0, 1, 2, 5, 6, 7, 8, 9] * 2)
    elsewhere = probed.judge()[3]
    assert same.moved == elsewhere.moved == 1
    assert elsewhere.p < 1e-6 < same.p
    assert elsewhere.found


def test_evidence_that_may_be_of_the_scene_asks_for_the_variety_of_anything() -> None:
    probed = Probed()
    probed.move(3, [0, 1, 2] * 5)
    assert found(probed.judge()) == {3}
    assert not found(probed.judge(shares={"one": 0.8}))
    probed.move(3, [0, 1, 2, 4, 5, 6, 7, 8] * 2)
    assert found(probed.judge(shares={"one": 0.8})) == {3}


def test_the_excess_is_that_of_the_evidence_whose_suspects_fell_farthest() -> None:
    probed = Probed(evidence=("one", "other"))
    indices = np.arange(SUSPECTS) + SUSPECTS
    probed.judged[1] = probed.judged[1]._replace(pairs=indices, others=probed.judged[1].others[SUSPECTS:])
    probed.fall[indices] = 0.3
    verdicts = probed.judge()
    assert (verdicts[0].excess, verdicts[0].fell_by) == (pytest.approx(0.29), "other")
    # By what benign pictures may show too, no word is probed by itself.
    assert probed.judge(shares={"other": 0.4})[0].fell_by == "one"
    assert probed.judge(shares={"one": 0.4, "other": 0.4})[0].fell_by == ""
    assert verdicts[1].excess == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (2, 2), (10, 2), (16, 2), (17, 3), (100, 13)])
def test_an_eighth_of_the_words_stands_out_two_at_least(count: int, expected: int) -> None:
    falls = np.random.default_rng(count).permutation(count) / max(count, 1)
    found = standing_out([(7 * index, fall, f"by {index}") for index, fall in enumerate(falls.tolist())])
    assert found == {7 * index: f"by {index}" for index in np.argsort(-falls).tolist()[:expected]}


def test_of_words_that_fell_alike_the_more_frequent_stand_out() -> None:
    assert standing_out([(5, 0.2, "one"), (3, 0.2, "other"), (9, 0.2, "one"), (1, 0.1, "one")]) == {
        3: "other",
        5: "one",
    }


def test_a_test_without_pairs_says_nothing() -> None:
    nobody = np.zeros(0, np.int64)
    probed = Probed()
    probed.judged[3] = probed.judged[3]._replace(pairs=nobody, others=nobody)
    assert probed.judge()[3] == NOTHING
    probed.judged = []
    assert probed.judge() == {}


def test_significance_and_variety_are_what_is_asked() -> None:
    probed = Probed()
    probed.move(3, [0, 1, 2, 4] * 3)
    verdict = probed.judge()[3]
    assert verdict.variety == pytest.approx(4)
    assert 0 < verdict.p < 1
    for significance, variety, expected in (
        (verdict.p * 1.01, 3.9, {3}),
        (verdict.p * 0.99, 3.9, set()),
        (verdict.p * 1.01, 4.1, set()),
    ):
        assert found(probed.judge(significance=significance, min_variety=variety)) == expected


@pytest.mark.parametrize(("to", "expected"), [([0, 1], set()), ([0, 1, 2], {3})])
def test_two_neighbours_alike_are_no_variety(to: list[int], expected: set[int]) -> None:
    """As the demo's hearts went on a processor without bfloat16: half of them, to two words, with a p of 6e-8."""
    probed = Probed()
    probed.move(3, (to * 8)[:12])
    assert probed.judge()[3].variety == pytest.approx(len(to))
    assert found(probed.judge()) == expected


def test_at_chance_hardly_a_word_is_found() -> None:
    generator, accused = np.random.default_rng(0), 0
    for _ in range(40):
        probed = Probed()
        moved = generator.random(len(probed.after)) < 0.3
        probed.after[moved] = generator.integers(0, WORDS, int(moved.sum()))
        accused += bool(found(probed.judge(min_variety=0.5)))
    assert accused <= 2


def falls(poisoned: int, benign: int, seed: int = 0) -> npt.NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return np.append(generator.normal(0.5, 0.05, poisoned), generator.normal(0.0, 0.02, benign)).astype(np.float32)


NOBODY = np.zeros(1200, np.float32)
"""A suspicion that says nothing: the fall alone ranks."""


@pytest.mark.parametrize("poisoned", [10, 100, 500, 900, 990])
def test_what_fell_is_unlearnt_or_left_out_whatever_its_share(poisoned: int) -> None:
    fall = np.append(falls(poisoned, 1000 - poisoned), np.full(200, 0.5, np.float32))
    decision = divide(np.arange(1000), fall, NOBODY, 0.6)
    assert decision.dtype == np.int8
    unlearnt = np.flatnonzero(decision == POISONED)
    assert (unlearnt < poisoned).all()
    assert len(unlearnt) == math.ceil(poisoned / 2)
    # The farther half of them.
    assert set(unlearnt) == set(np.argsort(-fall[:poisoned])[: len(unlearnt)])
    assert not (decision[:poisoned] == BENIGN).any()
    retained = decision[poisoned:1000] == BENIGN
    assert retained.sum() == min(1000 - poisoned, 600)
    # Those that fell least are retained.
    assert fall[poisoned:1000][retained].max() <= fall[poisoned:1000][~retained].min(initial=np.inf)
    # What is not of the word is none of its business, however far it fell.
    assert (decision[1000:] == BENIGN).all()


def test_what_is_unlearnt_has_fallen_and_was_suspected() -> None:
    generator = np.random.default_rng(0)
    fall, suspicion = falls(100, 900), np.append(generator.normal(1, 0.1, 100), generator.normal(0, 0.1, 900))
    # Benign pairs that fell as far as poisoned ones, and others that are as suspicious.
    fall[100:120], suspicion[120:140] = generator.normal(0.5, 0.05, 20), generator.normal(1, 0.1, 20)
    alone, both = (divide(np.arange(1000), fall, each, 0.6) for each in (NOBODY[:1000], suspicion))
    assert (np.flatnonzero(alone == POISONED) >= 100).sum() > 5
    assert (np.flatnonzero(both == POISONED) < 100).all()
    assert (both == POISONED).sum() == 60
    assert not (both[:100] == BENIGN).any()


def test_at_most_a_share_of_a_word_is_retained() -> None:
    for share in (0.1, 0.5, 1.0):
        decision = divide(np.arange(1000), falls(100, 900), NOBODY, share)
        assert (decision == BENIGN).sum() == pytest.approx(min(1000 * share, 900), abs=1)


def test_where_all_have_fallen_alike_nothing_is_unlearnt() -> None:
    assert divide(np.arange(10), np.full(10, 0.3, np.float32), NOBODY, 0.6).tolist() == [BENIGN] * 10
    assert divide(np.array([1]), np.array([0.1, 0.9], np.float32), NOBODY, 0.6).tolist() == [BENIGN] * 2


def test_pairs_of_a_found_word_that_could_not_be_read_are_left_out() -> None:
    fall, suspicion = falls(10, 40), NOBODY[:53].copy()
    fall[3], suspicion[30] = np.nan, np.nan
    fall = np.append(fall, np.full(3, np.nan, np.float32))
    decision = divide(np.arange(50), fall, suspicion, 1.0)
    assert decision[[3, 30]].tolist() == [SUSPICIOUS] * 2
    assert decision[50:].tolist() == [BENIGN] * 3
    assert (decision[:10] == POISONED).sum() == 5


@pytest.mark.parametrize("group", [[], [0], [0, 1]])
def test_a_word_of_which_nothing_is_known_is_left_out(group: list[int]) -> None:
    decision = divide(np.array(group, dtype=np.int64), np.full(4, np.nan, np.float32), NOBODY[:4], 0.6)
    assert np.flatnonzero(decision == SUSPICIOUS).tolist() == group
    assert (decision != POISONED).all()


def test_what_the_second_witness_acquits_is_not_found() -> None:
    accused = NOTHING._replace(p=1e-5, found=True)
    assert accused.fragility is None
    assert accused.witnessed(0.5, 0.3, 1e-8) == accused._replace(fragility=0.5)
    assert accused.witnessed(0.2, 0.3, 1e-8) == accused._replace(fragility=0.2, found=False)
    # What the probe says beyond doubt needs nobody to confirm it.
    assert accused._replace(p=1e-9).witnessed(0.2, 0.3, 1e-8).found
    # Nobody is found by the second witness alone.
    assert not NOTHING.witnessed(1.0, 0.3, 1e-8).found


def test_screened_evidence_is_asked_of_the_words_that_it_suspects_most() -> None:
    groups = [np.arange(10 * word, 10 * word + 10) for word in range(200)]
    suspicion = np.zeros(2000, np.float32)
    # A few of the suspects of a word count, not all of its pairs; what is not known does not.
    suspicion[groups[7][:3]], suspicion[groups[9]], suspicion[groups[11][:2]] = 3, 1, 2
    suspicion[groups[5]], suspicion[groups[11][2:]] = np.nan, np.nan
    asked = most_suspected(groups, suspicion, 3)
    assert asked[:3] == [7, 11, 9]
    assert len(asked) == 25
    assert 5 not in asked
    # Of few words all are asked, and a word without pairs is no mistake.
    assert sorted(most_suspected([*groups[:9], np.zeros(0, np.int64)], suspicion, 3)) == list(range(10))


def test_a_word_is_accused_by_what_is_odd_and_went_to_more_than_its_neighbour() -> None:
    def said(index: int, p: float, variety: float, evidence: str = "detail") -> dict[str, Any]:
        return {"index": index, "p": p, "variety": variety, "evidence": evidence}

    verdicts = [said(3, 0.05, 2.0), said(4, 0.051, 5.0), said(5, 1e-6, 1.9), said(6, 1e-6, 4.0, "flip")]
    assert accused(verdicts, 2.0) == {3: "detail", 6: "flip"}
    assert accused(verdicts, 1.9) == {3: "detail", 5: "detail", 6: "flip"}
