"""The arguments of a class that hands some on to its base."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

from ..contracts import UserMistake


def constructor_arguments(kind: type) -> dict[str, Any]:
    """What an object of a class is made with.

    Args:
        kind: The class. Where its ``__init__`` takes ``**kwargs``, these are the arguments of its base's.

    Returns:
        The types by name; ``Any`` where none is given.
    """
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        hints = get_type_hints(base.__init__)  # type: ignore[misc]  # of this very class
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(parameter.name, hints.get(parameter.name, Any))
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def kept_arguments(made: object, *without: str) -> dict[str, Any]:
    """The arguments that an object was made with, from its attributes.

    Args:
        made: It keeps each argument of its constructor in an attribute of the same name.
        without: Names that are left out.

    Raises:
        UserMistake: If it does not.
    """
    names = [name for name in constructor_arguments(type(made)) if name not in without]
    lost = [name for name in names if not hasattr(made, name)]
    if lost:
        raise UserMistake(
            f"{type(made).__name__} keeps no attribute {lost[0]!r}: each argument of its constructor has to stay in "
            "one of its name, as the manifest records it"
        )
    return {name: getattr(made, name) for name in names}
