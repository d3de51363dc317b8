"""EDA: easy data augmentation for captions (Wei and Zou 2019, arXiv 1901.11196)."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Sequence

from ...contracts import UserMistake
from .base import TextView
from .synonyms import STOP_WORDS, thesaurus

_has_letter = re.compile(r"[^\W\d_]").search
_PUNCTUATION = string.punctuation + "…\u2013—\u2018\u2019“”«»¡¿"


class EDA(TextView):
    """One of synonym replacement, random insertion, random swap and random deletion, drawn for each caption.

    With ``l`` words and a rate alpha, the first three touch ``n = max(1, int(alpha * l))`` words and the last drops
    each word with probability alpha (section 2 of the paper). CleanCLIP (arXiv 2303.03323) uses 0.1 for all four and
    one of the four for each caption. A drawn operation that finds nothing to do leaves the caption as it is.

    A word is a stretch without white space that holds a letter; punctuation stays with its word, and what holds no
    letter (a number, a dash) stays where it is. A caption without words is its own view.

    Deviations from the official code, which CleanCLIP copies:

    - It draws once, in the constructor of the data set, from the global state, which it seeds when imported; here a
      view is a function of caption and seed.
    - It lowercases and keeps nothing but ``a`` to ``z`` (and fails where nothing is left); here case, punctuation and
      numbers are kept, and a synonym takes the case of the word that it replaces.
    - It takes synonyms from WordNet, which has to be downloaded; here a built-in table of everyday caption words is the
      default and WordNet an option. The table covers fewer words, so more captions find nothing to replace.
    - It inserts the *first* synonym of any word, a stop word too, never at the end, and gives up after ten attempts; as
      in the paper, a random synonym of a random word that is no stop word is inserted at a random position.
    - It may swap a word with itself, or give up after three attempts; here two different positions are drawn.

    Args:
        synonym_replacement: Rate alpha in [0, 1] of words that are replaced; 0 leaves the operation out.
        random_insertion: Rate of synonyms that are inserted; likewise.
        random_swap: Rate of swaps of two words; likewise.
        random_deletion: Probability that a word is dropped; likewise.
        synonyms: ``builtin``, ``wordnet`` (NLTK's, on disk), or the path of a text file with one group of synonyms a
            line, separated by commas.

    Raises:
        UserMistake: If a rate is outside [0, 1], all are 0, or the synonyms are not there.
    """

    def __init__(
        self,
        synonym_replacement: float = 0.1,
        random_insertion: float = 0.1,
        random_swap: float = 0.1,
        random_deletion: float = 0.1,
        synonyms: str = "builtin",
    ) -> None:
        self.synonym_replacement = synonym_replacement
        self.random_insertion = random_insertion
        self.random_swap = random_swap
        self.random_deletion = random_deletion
        self.synonyms = synonyms
        self._thesaurus = thesaurus(synonyms)
        operations: list[tuple[str, float, Callable[[list[str], list[int], random.Random], None]]] = [
            ("synonym_replacement", synonym_replacement, self._replace),
            ("random_insertion", random_insertion, self._insert),
            ("random_swap", random_swap, self._swap),
            ("random_deletion", random_deletion, self._delete),
        ]
        for name, rate, _ in operations:
            if not 0 <= rate <= 1:
                raise UserMistake(f"EDA's {name} is {rate}; it is a share of the words, between 0 and 1")
        self._operations = [operation for _, rate, operation in operations if rate > 0]
        if not self._operations:
            raise UserMistake("all four rates of EDA are 0, which changes no caption; leave the text view out instead")

    def __call__(self, captions: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Make one view of each caption; as ``TextView``."""
        return [self._augment(caption, random.Random(int(seed))) for caption, seed in zip(captions, seeds, strict=True)]

    def _augment(self, caption: str, rng: random.Random) -> str:
        pieces = caption.split()
        indices = [index for index, piece in enumerate(pieces) if _has_letter(piece)]
        if not indices:
            return caption
        operation = rng.choice(self._operations)
        operation(pieces, indices, rng)
        return " ".join(pieces)

    def _replace(self, pieces: list[str], indices: list[int], rng: random.Random) -> None:
        """Replace n different words that are no stop words, each everywhere, by a random synonym."""
        indices_of: dict[str, list[int]] = {}
        for index in indices:
            indices_of.setdefault(_bare(pieces[index]).lower(), []).append(index)
        words = [word for word in indices_of if word not in STOP_WORDS]
        rng.shuffle(words)
        left = _count(self.synonym_replacement, indices)
        for word in words:
            if left == 0:
                return
            if options := self._thesaurus(word):
                synonym = rng.choice(options)
                for index in indices_of[word]:
                    bare = _bare(pieces[index])
                    pieces[index] = pieces[index].replace(bare, _cased_as(bare, synonym), 1)
                left -= 1

    def _insert(self, pieces: list[str], indices: list[int], rng: random.Random) -> None:
        """Do n times: insert, at a random position, a random synonym of a random word that is no stop word."""
        words = (_bare(pieces[index]).lower() for index in indices)
        options = [found for word in words if word not in STOP_WORDS and (found := self._thesaurus(word))]
        if options:
            for _ in range(_count(self.random_insertion, indices)):
                pieces.insert(rng.randint(0, len(pieces)), rng.choice(rng.choice(options)))

    def _swap(self, pieces: list[str], indices: list[int], rng: random.Random) -> None:
        """Do n times: swap the words at two random positions."""
        if len(indices) > 1:
            for _ in range(_count(self.random_swap, indices)):
                one, other = rng.sample(indices, 2)
                pieces[one], pieces[other] = pieces[other], pieces[one]

    def _delete(self, pieces: list[str], indices: list[int], rng: random.Random) -> None:
        """Drop each word with probability alpha; a random one stays where all would go."""
        dropped = {index for index in indices if rng.random() < self.random_deletion}
        if len(dropped) == len(indices):
            dropped.remove(rng.choice(indices))
        pieces[:] = [piece for index, piece in enumerate(pieces) if index not in dropped]


def _count(rate: float, indices: list[int]) -> int:
    return max(1, int(rate * len(indices)))


def _bare(piece: str) -> str:
    return piece.strip(_PUNCTUATION)


def _cased_as(word: str, synonym: str) -> str:
    if word.isupper() and len(word) > 1:
        return synonym.upper()
    return synonym[0].upper() + synonym[1:] if word[0].isupper() else synonym
