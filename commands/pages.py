"""HTML pages from templates: one file each, without a network."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_templates() -> Environment:
    """The templates of the commands, by their paths below ``commands/``.

    Names in a run folder are other people's text: everything that is not Markup is escaped.
    """
    return Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
