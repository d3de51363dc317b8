"""Turns ``math`` blocks into MathML, which browsers show without a script (a hook of MkDocs)."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

_BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Convert the blocks of a page."""
    return _BLOCK.sub(
        lambda found: f'<div class="formula">{convert(found[1].strip(), display="block")}</div>', markdown
    )
