"""What the files beside a checkpoint say of its run. Nothing here is trusted."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...callbacks.results_table import read_results
from ...lightning_modules.encoders.checkpoint_files import read_pickled
from ...plain_yaml import read_yaml
from ...reading import reading
from ...ubt_record import UBT_RECORD, UBTRecord

_LARGEST = 2**20  # bytes of a config
_LEAST_WORD_SHARE = 0.01


@dataclass(frozen=True)
class Suspects:
    """What a defence took for poisoned."""

    poisoned: int
    """Pairs that it unlearnt."""
    suspicious: int
    """Pairs that it left out of everything."""
    words: list[str]
    """The compromised words, the most frequent first."""


@dataclass(frozen=True)
class History:
    """What is known of how a model came to be."""

    method: str
    """The class that trained it, without its package."""
    started_from: str | None
    """The name of the file or folder that it started from."""
    rows: list[dict[str, str]]
    """The rows of ``results.csv``; empty where nothing was measured."""
    suspects: Suspects | None
    """What a defence took for poisoned; None where none looked."""
    ubt: UBTRecord | None = None
    """What UBT's probes said; None of other runs."""


def read_history(model: Path) -> History | None:
    """Read the run folder of a checkpoint.

    Args:
        model: The checkpoint.

    Returns:
        What is known; None where no config of a run lies beside it.

    Raises:
        UserMistake: If a file of the run cannot be read.
    """
    config = model.parent / "config.yaml"
    if model.is_dir() or not config.is_file():
        return None
    section = _model_section(config)
    method = section.get("class_path")
    if not isinstance(method, str):
        return None
    arguments = section.get("init_args")
    started = arguments.get("init_from") if isinstance(arguments, Mapping) else None
    folder = model.parent
    ubt = UBTRecord.read(folder) if (folder / UBT_RECORD).is_file() else None
    return History(
        method.rpartition(".")[2],
        # Of the path no more than its end: where files lie is nobody's business.
        "/".join(Path(started).parts[-2:]) if isinstance(started, str) else None,
        read_results(folder / "results.csv"),
        suspects_of(ubt) if ubt else _read_suspects(folder / "suspects.csv"),
        ubt,
    )


def suspects_of(ubt: UBTRecord) -> Suspects:
    """What UBT took for poisoned."""
    return Suspects(ubt.poisoned, ubt.suspicious, ubt.compromised[:10])


def is_marked(model: Path) -> bool:
    """Whether a checkpoint is marked as trained on data that was poisoned on purpose, in itself or by what lies beside.

    Args:
        model: The checkpoint, or the folder of a model.

    Raises:
        UserMistake: If the checkpoint cannot be read as tensors and plain data.
    """
    if model.is_dir():
        return (model / "poison.json").is_file()
    if (model.parent / "poison.json").is_file():
        return True
    if model.suffix == ".safetensors":
        return False
    content = read_pickled(model)
    # The mark is the data module's, under the name of its class.
    parts = content.values() if isinstance(content, Mapping) else ()
    return any(isinstance(part, Mapping) and "poisoned" in str(part.get("warning", "")) for part in parts)


def _model_section(path: Path) -> Mapping[str, Any]:
    content = read_yaml(path, "config of a run")
    section = content.get("model") if isinstance(content, dict) else None
    return section if isinstance(section, dict) else {}


def _read_suspects(path: Path) -> Suspects | None:
    if not path.is_file():
        return None
    decisions: Counter[str] = Counter()
    words: Counter[str] = Counter()
    with (
        reading("table of suspects", path),
        path.open(encoding="utf-8", errors="replace", newline="") as file,
    ):
        for row in csv.DictReader(file):
            decisions[str(row.get("decision"))] += 1
            words.update(set(str(row.get("compromised_tokens") or "").split()))
    common = [word for word, count in words.most_common(10) if count >= _LEAST_WORD_SHARE * decisions.total()]
    return Suspects(decisions["poisoned"], decisions["suspicious"], common)
