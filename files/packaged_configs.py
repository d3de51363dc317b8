"""The package's own configs, by the names that they have in a checkout."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]  # its __all__ is made at run time

from ..contracts import UserMistake
from ..nearest import meant
from .reading import shown

_FOLDER, _GRIDS = "configs", "bench"


def packaged_config(name: str) -> str:
    """Where a config is: a file of the user's, or the package's own where there is none.

    Args:
        name: A path as the user wrote it, such as ``mine.yaml``, ``configs/ubt/cifar10.yaml`` or ``ubt/cifar10.yaml``.

    Returns:
        The path of the package's file where no file has this name here and the package has one; else the name.
    """
    own = Path(str(files("untrigger") / _FOLDER))
    try:
        if not Path(name).exists() and ".." not in Path(name).parts and not Path(name).is_absolute():
            for path in (own.parent / name, own / name):
                if path.suffix == ".yaml" and path.is_relative_to(own) and path.is_file():
                    return str(path)
    except (OSError, ValueError):  # no path at all, but a config written out
        pass
    return name


def nearest_config(name: str, grid: bool) -> str:
    """The end of a complaint: the package's config whose name is nearest; nothing where none is near.

    Args:
        name: As the user wrote it: with the folder or, where that says nothing, the file's name alone.
        grid: Whether it is to be a grid of ``untrigger bench``, and not a run.
    """
    own = Path(str(files("untrigger") / _FOLDER))
    prefix = f"{_FOLDER}/" if name.startswith(f"{_FOLDER}/") else ""
    there = [path.relative_to(own) for path in sorted(own.rglob("*.yaml"))]
    known = [prefix + path.as_posix() for path in there if (path.parts[0] == _GRIDS) == grid]
    return meant(name, known) or (meant(f"{_GRIDS}/{name}", known) if grid else "")


def _names_no_file(text: str) -> bool:
    """Whether a text is the path of nothing; a config written out is none."""
    try:
        return text.isprintable() and not any(mark in text for mark in (": ", "{", "[")) and not Path(text).exists()
    except (OSError, ValueError):
        return False


class ConfigFile(ActionConfigFile):
    """``--config``, which finds the package's own files too."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Read the file into the options.

        Raises:
            UserMistake: If there is no such file, with the nearest of the package's.
        """
        found = packaged_config(values) if isinstance(values, str) else values
        grid = str(parser.prog).endswith(f" {_GRIDS}")
        if isinstance(found, str) and _names_no_file(found):
            raise UserMistake(f"config {shown(found)} does not exist{nearest_config(found, grid)}")
        super().__call__(parser, cfg, found, option_string)  # type: ignore[no-untyped-call]  # jsonargparse's
