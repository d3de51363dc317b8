"""HTML pages from templates: one file each, without a network."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_templates() -> Environment:
    """The templates of the commands, by their paths below ``commands/``.

    Names in a run folder are other people's text: everything that is not Markup is escaped.
    """
    return Environment(
        finalize=_shown,
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    """A text without the control characters that markup cannot escape, such as those that steer a terminal."""
    if type(value) is not str or value.isprintable():  # Markup is a text of ours
        return value
    return "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in value)
