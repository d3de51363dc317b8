"""Pages whose text lies outside of `docs/`: the home page is the README (a hook of MkDocs)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_SOURCE = re.compile(r"<!-- from (\S+) -->\s*")
_LINK = re.compile(r"\]\((?:docs/|(benchmarks/RESULTS\.md))")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the text where a page names its file, with links as they are from here."""
    source = _SOURCE.fullmatch(markdown)
    if source is None:
        return markdown
    return _LINK.sub(lambda link: "](measured.md" if link[1] else "](", (ROOT / source[1]).read_text(encoding="utf-8"))
