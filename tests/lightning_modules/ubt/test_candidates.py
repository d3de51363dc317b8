from __future__ import annotations

from itertools import chain

import numpy as np
import numpy.typing as npt
import pytest

from untrigger.lightning_modules.ubt.candidates import Candidates, candidates

Group = npt.NDArray[np.int64]


def group(*ranges: range) -> Group:
    return np.array(list(chain(*ranges)), dtype=np.int64)


def random_scores(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).random(count).astype(np.float32)


def descending(indices: Group, scores: npt.NDArray[np.float32]) -> list[int]:
    """The naive ranking: without NaN, the highest first, of equal ones the earlier."""
    return sorted((int(index) for index in indices if scores[index] == scores[index]), key=lambda index: -scores[index])


def test_every_other_one_of_the_first_is_pushed_and_the_rest_judged() -> None:
    scores, indices = random_scores(100), group(range(10, 90))
    found = candidates({0: indices}, {"one": scores}, 6, 0.0)
    ranking = descending(indices, scores)
    assert found.pushed.tolist() == sorted(ranking[0:6:2])
    assert found.words.tolist() == [0, 0, 0]
    (judged,) = found.judged
    assert (judged.word, judged.evidence) == (0, "one")
    assert judged.pairs.tolist() == ranking[1:6:2]
    assert judged.pushed.tolist() == ranking[0:6:2]
    assert judged.next.tolist() == ranking[6:12]
    # Those that are compared with lie beyond the first quarter.
    assert judged.others.tolist() == sorted(ranking[20:])
    assert found.doubtful.tolist() == sorted(ranking[:12])


def test_ordinary_pairs_are_drawn_where_there_are_many() -> None:
    scores, indices = random_scores(2000), group(range(2000))
    (judged,) = candidates({0: indices}, {"one": scores}, 8, 0.0).judged
    (again,) = candidates({0: indices}, {"one": scores}, 8, 0.0).judged
    (other,) = candidates({0: indices}, {"one": scores}, 8, 0.0, seed=(1,)).judged
    assert np.array_equal(judged.others, again.others)
    assert not np.array_equal(judged.others, other.others)
    assert 200 < len(set(judged.others.tolist())) == len(judged.others) < 1500
    assert not set(judged.others.tolist()) & set(descending(indices, scores)[:500])


def test_evidence_that_is_judged_only_pushes_nobody_and_changes_no_push() -> None:
    one, two, indices = random_scores(100), random_scores(100, 1), group(range(100))
    alone = candidates({0: indices}, {"one": one}, 8, 0.0)
    # Whatever the order in which they are given.
    found = candidates({0: indices}, {"two": two, "one": one}, 8, 0.0, judged_only=("two",))
    assert np.array_equal(found.pushed, alone.pushed)
    by = {judged.evidence: judged for judged in found.judged}
    assert by["one"].pairs.tolist() == alone.judged[0].pairs.tolist()
    foremost, pushed = descending(indices, two)[:8], set(alone.pushed.tolist())
    assert by["two"].pairs.tolist() == [pair for pair in foremost if pair not in pushed]
    assert by["two"].pushed.tolist() == [pair for pair in foremost if pair in pushed]
    assert set(foremost) <= set(found.doubtful.tolist())


def test_each_word_ranks_its_own_pairs() -> None:
    scores = random_scores(60)
    scores[30:] += 10  # every pair of the second word looks more suspicious than any of the first
    found = candidates({4: group(range(30)), 7: group(range(30, 60))}, {"one": scores}, 4, 0.0)
    assert found.words.tolist() == [4, 4, 7, 7]
    assert [judged.word for judged in found.judged] == [4, 7]
    assert (found.pushed[:2] < 30).all()
    assert (found.pushed[2:] >= 30).all()


def test_a_word_may_be_asked_about_by_one_piece_of_evidence() -> None:
    groups = {0: group(range(40)), 1: group(range(40, 80))}
    scores = {"up": np.arange(80, dtype=np.float32), "down": -np.arange(80, dtype=np.float32)}
    found = candidates(groups, scores, 6, 0.0, {0: "down", 1: "up"})
    assert [(each.word, each.evidence) for each in found.judged] == [(0, "down"), (1, "up")]
    assert found.pushed.tolist() == [0, 2, 4, 75, 77, 79]


def test_of_equal_ones_the_earlier_comes_first() -> None:
    found = candidates({0: group(range(40))}, {"one": np.zeros(40, np.float32)}, 6, 0.0)
    assert found.pushed.tolist() == [0, 2, 4]
    assert found.judged[0].pairs.tolist() == [1, 3, 5]


def test_at_most_a_quarter_of_a_word_are_candidates_and_few_pairs_have_none() -> None:
    scores = random_scores(40)
    found = candidates(
        dict(enumerate([group(range(7)), group(range(7, 15)), group(range(15, 40))])), {"one": scores}, 100, 0.0
    )
    assert {judged.word for judged in found.judged} == {1, 2}
    assert [int((found.words == word).sum()) + len(found.judged[word - 1].pairs) for word in (1, 2)] == [2, 6]


def test_what_is_not_known_is_never_chosen() -> None:
    scores = random_scores(40)
    scores[[3, 5, 8]] = np.nan
    found = candidates({0: group(range(40))}, {"one": scores}, 40, 0.99)
    (judged,) = found.judged
    chosen = {*found.pushed.tolist(), *judged.pairs.tolist(), *judged.others.tolist()}
    assert not chosen & {3, 5, 8}
    nothing = candidates({0: group(range(40))}, {"one": np.full(40, np.nan, np.float32)}, 40, 0.5)
    assert nothing.pushed.size == 0
    assert all(judged.pairs.size == judged.others.size == 0 for judged in nothing.judged)


def disjoint(found: Candidates) -> bool:
    return not any(
        set(found.pushed[found.words == judged.word].tolist()) & {*judged.pairs.tolist()} for judged in found.judged
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_halves_of_a_word_have_nothing_in_common_whatever_the_evidence(seed: int) -> None:
    generator = np.random.default_rng(seed)
    suspicion = {name: random_scores(200, seed * 10 + index) for index, name in enumerate("abc")}
    suspicion["opposite"] = -suspicion["a"]
    suspicion["shifted"] = np.roll(suspicion["a"], 1)
    sizes = enumerate(generator.integers(8, 120, 6).tolist())
    groups = {word: np.sort(generator.choice(200, size, replace=False)) for word, size in sizes}
    found = candidates(groups, suspicion, 16, 0.2)
    assert disjoint(found)
    assert len(found.judged) == 6 * len(suspicion)
    for judged in found.judged:
        pushed = set(found.pushed[found.words == judged.word].tolist())
        ranking = descending(groups[judged.word], suspicion[judged.evidence])
        most = min(16, len(ranking) // 4)
        # All of the first are one or the other.
        assert set(ranking[:most]) <= pushed | set(judged.pairs.tolist())
        assert set(judged.pairs.tolist()) <= set(ranking[:most])
        assert set(judged.others.tolist()) <= set(ranking[most:])
        assert not set(ranking[: int(0.2 * len(ranking))]) - set(found.doubtful.tolist())
    assert set(found.pushed.tolist()) <= set(found.doubtful.tolist())


def test_what_one_piece_of_evidence_has_chosen_stays_what_it_is() -> None:
    scores = -np.arange(40, dtype=np.float32)
    found = candidates({0: group(range(40))}, {"one": scores, "two": np.roll(scores, 1)}, 4, 0.0)
    # The second ranks 1, 2, 3 and 4 first; what the first three are is known.
    assert found.pushed.tolist() == [0, 2]
    assert [judged.pairs.tolist() for judged in found.judged] == [[1, 3], [1, 3, 4]]


def test_a_pair_of_several_words_may_be_pushed_from_each() -> None:
    scores = -np.arange(40, dtype=np.float32)
    found = candidates({0: group(range(40)), 1: group(range(0, 40, 2))}, {"one": scores}, 4, 0.0)
    assert list(zip(found.pushed.tolist(), found.words.tolist(), strict=True)) == [(0, 0), (2, 0), (0, 1), (4, 1)]
    assert [judged.pairs.tolist() for judged in found.judged] == [[1, 3], [2, 6]]
    # The next of a word end where its first quarter does.
    assert [judged.next.tolist() for judged in found.judged] == [[4, 5, 6, 7], [8]]
    assert found.doubtful.tolist() == list(range(9))


@pytest.mark.parametrize("groups", [[], [group()], [group(range(3))]])
def test_without_pairs_there_are_no_candidates(groups: list[Group]) -> None:
    found = candidates(dict(enumerate(groups)), {"one": random_scores(10)}, 8, 0.5)
    assert found.judged == []
    assert found.pushed.size == found.words.size == found.doubtful.size == 0
    assert found.pushed.dtype == found.words.dtype == found.doubtful.dtype == np.int64
