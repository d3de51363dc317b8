"""Search captions for whole words."""

from __future__ import annotations

import re


def phrase_pattern(phrase: str) -> re.Pattern[str]:
    """A pattern that finds a phrase as whole words, in any case, whatever white space is between them."""
    words = r"\s+".join(re.escape(word) for word in phrase.split())
    # Not \b, which asks for a letter on one side: a phrase may begin or end with a sign.
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
