"""Check a value out of JSON against a type annotation."""

from __future__ import annotations

import math
from types import UnionType
from typing import Any, Union, get_args, get_origin


def fits(value: object, hint: Any) -> bool:
    """Whether a value out of JSON is what an argument takes.

    Args:
        value: Plain data.
        hint: ``int``, ``float``, ``str``, ``bool``, ``None``, lists, tuples and unions of these; anything fits another.

    Returns:
        Whether it fits. An integer is a finite number too, a list a tuple; a truth value is neither, and a text is one
        that can be written as UTF-8.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is list:
        return isinstance(value, list) and all(fits(part, arguments[0]) for part in value)
    if origin is tuple:
        whole = isinstance(value, (list, tuple)) and len(value) == len(arguments)
        return whole and all(fits(part, argument) for part, argument in zip(value, arguments, strict=True))  # type: ignore[call-overload]
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)
    if hint is bool or hint is type(None):
        return isinstance(value, hint)
    return True
