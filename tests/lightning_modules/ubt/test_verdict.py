from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import hypergeom

from untrigger.lightning_modules.ubt.candidates import Judged
from untrigger.lightning_modules.ubt.findings import BENIGN, POISONED, SUSPICIOUS
from untrigger.lightning_modules.ubt.options import ProbeOptions
from untrigger.lightning_modules.ubt.verdict import WordVerdict, divide, exp_entropy, judge, standing_out

SUSPECTS, OTHERS, WORDS = 16, 64, 10
USUAL = ProbeOptions()
NOTHING = WordVerdict(3, "one", moved=0.0, moved_others=0.0, p=1.0, variety=0.0, fall=0.0, most=0.0, found=False)


class Probed:
    """Words of which a probe has something to say: nobody has moved and nothing has fallen, unless it is told so."""

    def __init__(self, words: int = WORDS, evidence: tuple[str, ...] = ("one",)) -> None:
        self.words, each = words, SUSPECTS + OTHERS
        self.before = np.repeat(np.arange(words), each)
        self.after = self.before.copy()
        self.fall = np.full(words * each, 0.01, np.float32)
        starts = np.arange(words) * each
        self.judged = [
            Judged(word, name, np.arange(start, start + SUSPECTS), np.arange(start + SUSPECTS, start + each))
            for word, start in enumerate(starts.tolist())
            for name in evidence
        ]

    def move(self, word: int, to: list[int], fall: float = 0.4, others: bool = False) -> None:
        """Some suspects of a word, or some of its ordinary pairs, go to other words."""
        judged = self.judged[word * len(self.judged) // self.words]
        places = (judged.others if others else judged.pairs)[: len(to)]
        self.after[places], self.fall[places] = to, fall

    def judge(self, **options: Any) -> dict[int, WordVerdict]:
        asked = {"significance": USUAL.significance, "min_variety": USUAL.min_variety} | options
        verdicts = judge(self.judged, self.fall, self.before, self.after, self.words, **asked)
        assert len({verdict.word for verdict in verdicts}) == len(verdicts)
        return {verdict.word: verdict for verdict in verdicts}


def found(verdicts: dict[int, WordVerdict]) -> set[int]:
    return {word for word, verdict in verdicts.items() if verdict.found}


def test_a_backdoor_is_found_where_what_was_not_pushed_goes_back_to_many_words() -> None:
    probed = Probed()
    probed.move(3, [place % WORDS for place in range(SUSPECTS) if place % WORDS != 3])
    probed.move(3, [5], others=True)
    verdicts = probed.judge()
    assert found(verdicts) == {3}
    assert set(verdicts) == set(range(WORDS))
    verdict = verdicts[3]
    assert (verdict.moved, verdict.moved_others) == (14 / SUSPECTS, 1 / OTHERS)
    # Fisher's exact test, one-sided, for each of ten words.
    exact = hypergeom(SUSPECTS + OTHERS, 15, SUSPECTS).sf(13)
    assert verdict.p == pytest.approx(exact * WORDS, rel=1e-6)
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
    probed.move(3, [place % 3 for place in range(SUSPECTS)])
    probed.move(3, [place % 3 for place in range(OTHERS)], others=True)
    verdicts = probed.judge()
    assert verdicts[3].p == pytest.approx(1)
    assert not found(verdicts)


def test_several_words_may_hide_a_backdoor() -> None:
    probed = Probed()
    for word in (2, 7):
        probed.move(word, [place for place in range(WORDS) if place != word])
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
    probed.move(3, [place % WORDS for place in range(SUSPECTS) if place % WORDS != 3])
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
    places = np.arange(SUSPECTS) + SUSPECTS  # the first ordinary pairs of the first word
    probed.judged[1] = probed.judged[1]._replace(pairs=places, others=probed.judged[1].others[SUSPECTS:])
    probed.after[places] = [place % WORDS for place in range(1, SUSPECTS + 1)]
    verdicts = probed.judge()
    assert found(verdicts) == {0}
    assert verdicts[0].evidence == "one"
    # One test more for each piece of evidence.
    alone = Probed()
    alone.judged[0] = alone.judged[0]._replace(pairs=places, others=alone.judged[0].others[SUSPECTS:])
    alone.after[places] = probed.after[places]
    assert verdicts[0].p == pytest.approx(2 * alone.judge()[0].p, rel=1e-9)


def test_the_greatest_fall_is_that_by_any_piece_of_evidence() -> None:
    probed = Probed(evidence=("one", "other"))
    places = np.arange(SUSPECTS) + SUSPECTS
    probed.judged[1] = probed.judged[1]._replace(pairs=places, others=probed.judged[1].others[SUSPECTS:])
    probed.fall[places] = 0.3
    verdicts = probed.judge()
    assert verdicts[0].most == pytest.approx(0.3)
    assert verdicts[1].most == verdicts[1].fall == pytest.approx(0.01)


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 2), (10, 2), (16, 2), (17, 3), (100, 13)])
def test_an_eighth_of_the_words_stands_out_two_at_least(count: int, expected: int) -> None:
    falls = np.random.default_rng(count).permutation(count) / count
    words = [7 * place for place in range(count)]
    found = standing_out(words, falls.tolist())
    assert found == [7 * place for place in np.argsort(-falls).tolist()][:expected]


def test_of_words_that_fell_alike_the_more_frequent_stand_out() -> None:
    assert standing_out([5, 3, 9, 1], [0.2, 0.2, 0.2, 0.1]) == [3, 5]
    assert standing_out([], []) == []


def test_a_test_without_pairs_says_nothing() -> None:
    nobody = np.zeros(0, np.int64)
    probed = Probed()
    probed.judged[3] = probed.judged[3]._replace(pairs=nobody, others=nobody)
    assert probed.judge()[3] == NOTHING
    assert judge([], probed.fall, probed.before, probed.after, WORDS, 0.01, 2.0) == []


def test_significance_and_variety_are_what_is_asked() -> None:
    probed = Probed()
    probed.move(3, [0, 1, 2, 4])
    verdict = probed.judge()[3]
    assert verdict.variety == pytest.approx(4)
    assert 0 < verdict.p < 1
    for significance, variety, expected in (
        (verdict.p * 1.01, 3.9, {3}),
        (verdict.p * 0.99, 3.9, set()),
        (verdict.p * 1.01, 4.1, set()),
    ):
        assert found(probed.judge(significance=significance, min_variety=variety)) == expected


def test_at_chance_hardly_a_word_is_found() -> None:
    generator, accused = np.random.default_rng(0), 0
    for _ in range(40):
        probed = Probed()
        moved = generator.random(len(probed.after)) < 0.3
        probed.after[moved] = generator.integers(0, WORDS, int(moved.sum()))
        accused += bool(found(probed.judge(min_variety=0.5)))
    assert accused <= 2


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([], 0.0), ([4], 1.0), ([4] * 9, 1.0), ([0, 1, 2, 7], 4.0), ([1, 1, 3, 3, -1, -1], 3.0), ([0, 0, 0, 1], 1.7548)],
)
def test_exp_entropy_counts_equally_frequent_labels(labels: list[int], expected: float) -> None:
    assert exp_entropy(np.array(labels, np.int64)) == pytest.approx(expected, abs=1e-4)


def test_exp_entropy_is_that_of_its_formula() -> None:
    labels = np.random.default_rng(0).integers(0, 7, 200) ** 2
    shares = [labels.tolist().count(label) / 200 for label in set(labels.tolist())]
    assert exp_entropy(labels) == pytest.approx(math.prod(share**-share for share in shares))


def falls(poisoned: int, benign: int, seed: int = 0) -> npt.NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return np.append(generator.normal(0.5, 0.05, poisoned), generator.normal(0.0, 0.02, benign)).astype(np.float32)


@pytest.mark.parametrize("poisoned", [10, 100, 500, 900, 990])
def test_what_fell_is_unlearnt_or_left_out_whatever_its_share(poisoned: int) -> None:
    fall = np.append(falls(poisoned, 1000 - poisoned), np.full(200, 0.5, np.float32))
    decision = divide([np.arange(1000)], fall, 0.6)
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


def test_at_most_a_share_of_a_word_is_retained() -> None:
    for share in (0.1, 0.5, 1.0):
        decision = divide([np.arange(1000)], falls(100, 900), share)
        assert (decision == BENIGN).sum() == pytest.approx(min(1000 * share, 900), abs=1)


def test_where_all_have_fallen_alike_nothing_is_unlearnt() -> None:
    assert divide([np.arange(10)], np.full(10, 0.3, np.float32), 0.6).tolist() == [BENIGN] * 10
    assert divide([np.array([1])], np.array([0.1, 0.9], np.float32), 0.6).tolist() == [BENIGN] * 2


def test_pairs_of_a_found_word_that_could_not_be_read_are_left_out() -> None:
    fall = falls(10, 40)
    fall[[3, 30]] = np.nan
    fall = np.append(fall, np.full(3, np.nan, np.float32))
    decision = divide([np.arange(50)], fall, 1.0)
    assert decision[[3, 30]].tolist() == [SUSPICIOUS] * 2
    assert decision[50:].tolist() == [BENIGN] * 3
    assert (decision[:10] == POISONED).sum() == 5


@pytest.mark.parametrize("group", [[], [0], [0, 1]])
def test_a_word_of_which_nothing_is_known_is_left_out(group: list[int]) -> None:
    decision = divide([np.array(group, dtype=np.int64)], np.full(4, np.nan, np.float32), 0.6)
    assert np.flatnonzero(decision == SUSPICIOUS).tolist() == group
    assert (decision != POISONED).all()


def test_of_two_words_the_graver_decision_counts() -> None:
    fall = np.append(falls(20, 80), falls(20, 80, seed=1))
    first, second = np.arange(0, 120), np.arange(80, 200)
    both = divide([first, second], fall, 0.6)
    assert np.array_equal(both, np.maximum(divide([first], fall, 0.6), divide([second], fall, 0.6)))
    assert divide([], fall, 0.6).tolist() == [BENIGN] * 200
