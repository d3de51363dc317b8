"""Checkpoints that are written whole, with the one before kept beside the last one."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.utilities import rank_zero_warn

from ..contracts import UserMistake
from ..files.writing import open_whole

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint through a temporary file that is on the disk before it gets the name.

    Lightning's own does not wait for the disk, and holds the file in memory a second time. Where ``last.ckpt`` is
    written again, the one before stays as ``previous.ckpt``. Files that are not local are left to Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint, whole or not at all.

        Raises:
            UserMistake: If there is no room for it, or another reason why it cannot be written.
        """
        if storage_options is not None or "file" not in get_filesystem(path).protocol:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        file = Path(path)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            for left in file.parent.glob(f".{file.name}.*.tmp"):  # by a process that was killed while it wrote
                left.unlink()
            with open_whole(file) as stream:
                torch.save(checkpoint, stream)
                if file.name == LAST and file.exists():
                    stream.flush()
                    os.fsync(stream.fileno())  # the new one is safe before the one before is given up
                    _keep(file, file.with_name(PREVIOUS))
        # torch's writer has its own words for a stream that refuses, and the reason as the context of the error.
        except (OSError, RuntimeError) as error:
            reason = _system_error(error)
            if reason is None:
                raise
            kept = f"; {file} is still the one before" if file.exists() else ""
            raise UserMistake(f"the checkpoint {file} cannot be written: {reason.strerror}{kept}") from error


def whole_checkpoint(path: str) -> str:
    """A checkpoint that is whole: the one that is asked for, or where it is cut off the one before.

    Args:
        path: Path of a local file.

    Returns:
        The same path, or that of the ``previous.ckpt`` beside it.
    """
    file = Path(path)
    before = file.with_name(PREVIOUS)
    # A zip archive has its table of contents at the end.
    if file.name != LAST or zipfile.is_zipfile(file) or not zipfile.is_zipfile(before):
        return path
    wrong = "is cut off" if file.exists() else "is missing"
    rank_zero_warn(f"{file} {wrong}: the run resumes from the checkpoint before, {before}")
    return str(before)


def last_checkpoint(folder: Path) -> str | None:
    """The checkpoint from which the run in a folder resumes; None where it has none yet."""
    found = any((folder / name).is_file() for name in (LAST, PREVIOUS))
    return whole_checkpoint(str(folder / LAST)) if found else None


def _keep(file: Path, name: Path) -> None:
    """Give a file that is about to be replaced another name."""
    link = name.with_name(f".{name.name}.{os.getpid()}.tmp")
    try:
        link.unlink(missing_ok=True)
        os.link(file, link)  # there is a last.ckpt at every moment
    except OSError:  # a file system without links
        file.replace(name)
    else:
        link.replace(name)


def _system_error(error: BaseException) -> OSError | None:
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, OSError):
            return current
        current = current.__context__
    return None
