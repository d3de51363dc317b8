"""Check that arguments which become part of a config are text, as a config is."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..contracts import UserMistake


def check_is_text(arguments: Sequence[str]) -> None:
    """Check that every argument is UTF-8.

    Raises:
        UserMistake: If one is not, as the name of a file need not be.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise UserMistake(
                f"{os.fsencode(argument)!r:.200} is not UTF-8, which a config has to be: rename the file or folder"
            ) from error
