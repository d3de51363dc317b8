"""Synonyms of single words, never downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ...contracts import UserMistake

Thesaurus = Callable[[str], tuple[str, ...]]
"""A lower-case word to its synonyms, sorted, without the word itself; empty where there is none."""

BUILTIN = Path(__file__).with_name("synonyms.txt")

# Captions are hostile text: what is longer than any word of WordNet's is not worth caching.
_MAX_WORD_LENGTH = 80

STOP_WORDS = frozenset(Path(__file__).with_name("stop_words.txt").read_text(encoding="utf-8").split())
"""Words that carry grammar, not content: they are never replaced."""


def thesaurus(source: str) -> Thesaurus:
    """Open a source of synonyms.

    Args:
        source: ``builtin``, a table of everyday caption words that comes with the package; ``wordnet``, NLTK's copy of
            WordNet where package and corpus are on disk; or the path of a text file, one group of synonyms a line,
            separated by commas, ``#`` for comments.

    Raises:
        UserMistake: If the source is not there or cannot be read.
    """
    if source == "wordnet":
        _require_wordnet()
        return _from_wordnet
    return partial(_from_table, _read_table(BUILTIN if source == "builtin" else Path(source)))


def _from_table(table: Mapping[str, tuple[str, ...]], word: str) -> tuple[str, ...]:
    return table.get(word, ())


def _read_table(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserMistake(
            f"cannot read synonyms from '{path}' ({error}): give builtin, wordnet, or the path of a text file with one "
            f"group of synonyms a line, separated by commas"
        ) from error
    others: dict[str, set[str]] = {}
    for line in lines:
        group = {" ".join(word.lower().split()) for word in line.partition("#")[0].split(",")} - {""}
        for word in group:
            others.setdefault(word, set()).update(group - {word})
    return {word: tuple(sorted(synonyms)) for word, synonyms in others.items() if synonyms}


def _require_wordnet() -> None:
    try:
        import nltk

        nltk.data.find("corpora/wordnet")
    except ImportError as error:
        raise UserMistake(
            "synonyms=wordnet needs the package nltk (pip install nltk); synonyms=builtin does not"
        ) from error
    except LookupError as error:
        raise UserMistake(
            "synonyms=wordnet needs NLTK's WordNet corpus on disk (python -m nltk.downloader wordnet); "
            "synonyms=builtin does not"
        ) from error


@lru_cache(maxsize=65536)
def _from_wordnet(word: str) -> tuple[str, ...]:
    """The lemmas of all synsets of the word, as EDA's official code takes them."""
    if len(word) > _MAX_WORD_LENGTH:
        return ()
    names = {lemma for synset in _wordnet(os.getpid()).synsets(word) for lemma in synset.lemma_names()}
    return tuple(sorted({name.replace("_", " ").replace("-", " ").lower() for name in names} - {word}))


@lru_cache(maxsize=1)
def _wordnet(process: int) -> Any:
    # A reader of its own for each process: forked ones share the position in the open files, and read nonsense.
    from nltk.corpus import CorpusReader, LazyCorpusLoader, WordNetCorpusReader

    other_languages = LazyCorpusLoader("omw-2.0", CorpusReader, r".*/wn-data-.*\.tab", encoding="utf8")
    return LazyCorpusLoader("wordnet", WordNetCorpusReader, other_languages)
