"""Follows every link of the built site, of HTML, SVG and CSS, and sees that no page loads anything from elsewhere.

MkDocs itself checks the links of Markdown; this also checks what docstrings, other hooks and the theme write (a hook of
MkDocs). Links to other sites are not followed.
"""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_LOG = logging.getLogger("mkdocs.hooks.links")
_IN_CSS = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")
_LINKING = ("a", "area")
"""Tags that a reader has to click; whatever else names an address loads it."""


class _Page(HTMLParser):
    """What a page links to, and the fragments that it can be entered at."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        """Addresses, and whether the page loads each by itself."""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the identifiers and addresses of a tag."""
        given = {name: value for name, value in attrs if value}
        self.ids.update(given[name] for name in ("id", "name") if name in given)
        addresses = [given[name] for name in ("href", "src", "data", "poster", "xlink:href") if name in given]
        addresses += [part.split()[0] for part in given.get("srcset", "").split(",") if part.split()]
        self.links += [(address, tag not in _LINKING) for address in addresses]
        self.links += [(address, True) for address in _css_addresses(given.get("style", ""))]

    def handle_data(self, data: str) -> None:
        """Take the addresses of a style sheet inside the page."""
        if self.lasttag == "style":
            self.links += [(address, True) for address in _css_addresses(data)]


def _css_addresses(text: str) -> list[str]:
    return [first or second for first, second in _IN_CSS.findall(text)]


def broken_links(site: Path) -> list[str]:
    """The links of a built site that lead nowhere, and what it loads from other hosts.

    Args:
        site: The folder of the site.

    Returns:
        A line for each, with the page and the address.
    """
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*")) if _is_markup(path)}
    links = [(path, *link) for path, page in pages.items() for link in page.links]
    for path in sorted(site.rglob("*.css")):
        links += [(path, address, True) for address in _css_addresses(path.read_text(encoding="utf-8"))]
    found = []
    for path, address, loaded in links:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") or parts.netloc:
            problem = "is loaded from another host" if loaded else ""
        elif parts.scheme:  # data:, mailto:
            problem = ""
        else:
            target = _target(site, path, unquote(parts.path))
            ids = pages[target].ids if target in pages else set()
            missing = bool(parts.fragment) and target in pages and unquote(parts.fragment) not in ids
            problem = "is no file" if not target.is_file() else "names no part of its page" if missing else ""
        if problem:
            found.append(f"{path.relative_to(site)}: {address} {problem}")
    return found


def _is_markup(path: Path) -> bool:
    return path.suffix in (".html", ".svg")


def _target(site: Path, page: Path, path: str) -> Path:
    """The file that a link's path leads to; the error page's paths begin at the root of the site."""
    if not path:
        return page
    target = (site / path.lstrip("/") if path.startswith("/") else page.parent / path).resolve()
    return target / "index.html" if target.is_dir() else target


def on_post_build(config: Any) -> None:
    """Warn of each; `make docs` is strict, so it fails."""
    for line in broken_links(Path(config.site_dir).resolve()):
        _LOG.warning(line)
