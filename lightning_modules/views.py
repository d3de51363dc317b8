"""The augmented views of a batch that a self-supervised loss needs."""

from __future__ import annotations

from collections.abc import Container

from ..contracts import UserMistake

_OPTIONS = {"image_view": "data.image_view", "tokens_view": "data.text_view"}


def check_views(present: Container[str], whose: str, without: str = "") -> None:
    """Check whether a batch has a view of each picture and of each caption.

    Args:
        present: Names of what is in it.
        whose: What needs them.
        without: How to do without, the end of the message.

    Raises:
        UserMistake: If one is missing.
    """
    if missing := [option for view, option in _OPTIONS.items() if view not in present]:
        raise UserMistake(
            f"{whose} needs {' and '.join(missing)}, such as TransformView for pictures and EDA for captions{without}"
        )
