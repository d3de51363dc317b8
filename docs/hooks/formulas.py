"""Turns ``math`` blocks into MathML, which browsers show without a script (a hook of MkDocs)."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

_BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def formula(block: str) -> str:
    r"""The HTML of a block: what ``\qquad`` separates goes on lines of its own, so that none is cut off."""
    lines = (convert(part.strip(" ,\n"), display="block") for part in block.split(r"\qquad"))
    return f'<div class="formula">{"".join(lines)}</div>'


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Convert the blocks of a page."""
    return _BLOCK.sub(lambda found: formula(found[1]), markdown)
