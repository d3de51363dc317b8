"""The page of the notebook, from its cells (a hook of MkDocs)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[1] / "story.py"
_CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def page(notebook: str) -> str:
    """The Markdown of a notebook in jupytext's percent format: text as it is, code in blocks."""
    _, *parts = _CELL.split(notebook)
    cells = []
    for is_text, content in zip(parts[::2], parts[1::2], strict=True):
        text = re.sub(r"^# ?", "", content, flags=re.MULTILINE) if is_text else f"```python\n{content.strip()}\n```"
        cells.append(text.strip())
    return "\n\n".join(cells)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the cells where a page asks for them."""
    return markdown.replace("<!-- notebook -->", page(NOTEBOOK.read_text(encoding="utf-8")))
