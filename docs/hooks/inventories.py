"""Links from the API reference to Lightning and torch, from a list in `docs/inventories/`: nothing is fetched.

mkdocstrings reads Sphinx inventories; the small ones here are written from text, one object a line (a hook of MkDocs).
"""

from __future__ import annotations

import zlib
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

FOLDER = Path(__file__).parents[1] / "inventories"
_HEAD = """# Sphinx inventory version 2
# Project: {0}
# Version: 0
# The remainder of this file is compressed using zlib.
"""


def inventory(name: str, listing: str) -> tuple[str, bytes]:
    """The URL of a project's documentation and its inventory.

    Args:
        name: Of the project.
        listing: The URL in the first line; then, a line for each object, its name, its kind and its page.
    """
    base, *lines = listing.splitlines()
    objects = [f"{item} py:{kind} 1 {page} -\n" for item, kind, page in (line.split() for line in lines)]
    return base, _HEAD.format(name).encode() + zlib.compress("".join(objects).encode())


def on_config(config: Any) -> Any:
    """Hand the inventories to mkdocstrings."""
    folder, found = Path(mkdtemp(prefix="untrigger-inventories-")), []
    for path in sorted(FOLDER.glob("*.txt")):
        base, content = inventory(path.stem, path.read_text(encoding="utf-8"))
        written = folder / f"{path.stem}.inv"
        written.write_bytes(content)
        found.append({"url": written.as_uri(), "base_url": base})
    config.plugins["mkdocstrings"].config.handlers["python"]["inventories"] = found
    return config


on_config.mkdocs_priority = 100  # before mkdocstrings reads them
