"""Read the history of a checkpoint from the files of its run folder. None of them is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...lightning_modules.encoders.checkpoint_files import read_pickled
from ...run_folder.config import read_config
from ...run_folder.manifest import MANIFEST
from ...run_folder.progress import is_under_way, samples_seen
from ...run_folder.results import read_results
from ...run_folder.suspects import SuspectCounts, count_suspects
from ...run_folder.ubt import UBT_RECORD, UBTRecord
from ...trainer.checkpoints import LAST


@dataclass(frozen=True)
class History:
    """What is known of how a model came to be."""

    method: str
    """The class that trained it, without its package."""
    started_from: str | None
    """The name of the file or folder that it started from."""
    rows: list[dict[str, str]]
    """The rows of ``results.csv`` that are of this checkpoint; empty where it was not measured."""
    suspects: SuspectCounts | None
    """What a defence took for poisoned; None where none looked."""
    ubt: UBTRecord | None = None
    """What UBT's probes said; None of other runs."""
    under_way: bool = False
    """Whether the run was known not to be over when it wrote the checkpoint."""


def read_history(model: Path) -> History | None:
    """Read the run folder of a checkpoint.

    Args:
        model: The checkpoint.

    Returns:
        What is known of this checkpoint, which may be an earlier one than the files are of; None where no config of a
        run lies beside it.

    Raises:
        UserMistake: If a file of the run cannot be read.
    """
    folder = model.parent
    config = None if model.is_dir() else read_config(folder)
    if config is None or config.method is None:
        return None
    content = None if model.suffix == ".safetensors" else read_pickled(model)
    under_way = is_under_way(content)
    ubt = UBTRecord.read(folder) if (folder / UBT_RECORD).is_file() and not under_way else None
    return History(
        config.method.rpartition(".")[2],
        # Of the path no more than its end: where files lie is nobody's business.
        "/".join(Path(config.init_from).parts[-2:]) if config.init_from else None,
        _rows_of(model, content),
        None if under_way else suspects_of(ubt) if ubt else count_suspects(folder),
        ubt,
        under_way,
    )


def _rows_of(model: Path, content: Any) -> list[dict[str, str]]:
    """What was measured of a checkpoint: the rows after as many pairs as it has seen."""
    rows, samples = read_results(model.parent), samples_seen(content)
    if samples is None:  # weights alone: the rows are of the run's end
        return rows if model.name == LAST else []
    return [row for row in rows if row["samples_seen"] == samples]


def suspects_of(ubt: UBTRecord) -> SuspectCounts:
    """What UBT took for poisoned."""
    return SuspectCounts(ubt.poisoned, ubt.suspicious, ubt.compromised[:10])


def is_marked(model: Path) -> bool:
    """Whether a checkpoint is marked as trained on data that was poisoned on purpose, in itself or by what lies beside.

    Args:
        model: The checkpoint, or the folder of a model.

    Raises:
        UserMistake: If the checkpoint cannot be read as tensors and plain data.
    """
    if model.is_dir():
        return (model / MANIFEST).is_file()
    if (model.parent / MANIFEST).is_file():
        return True
    if model.suffix == ".safetensors":
        return False
    content = read_pickled(model)
    # The mark is the data module's, under the name of its class.
    parts = content.values() if isinstance(content, Mapping) else ()
    return any(isinstance(part, Mapping) and "poisoned" in str(part.get("warning", "")) for part in parts)
