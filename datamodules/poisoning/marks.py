"""The marks of shards that are poisoned already: the manifests that lie beside them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ...contracts import UserMistake
from ...run_folder.manifest import MANIFEST, PlanRecord, read_plans
from .poison import Shards


def manifests_beside(folders: Iterable[str]) -> list[str]:
    """The manifests that lie in some folders, each once, however many paths lead to it."""
    beside = [Path(folder, MANIFEST) for folder in sorted(folders)]
    return sorted({os.path.realpath(path) for path in beside if path.exists()})


def check_apart(folders: Iterable[str], run_folder: str | os.PathLike[str]) -> None:
    """Check that the manifest of a run will not lie beside its shards, where it would say that these are poisoned.

    Args:
        folders: Where the shards lie.
        run_folder: Where the run's manifest goes.

    Raises:
        UserMistake: If it would.
    """
    if any(os.path.realpath(folder or ".") == os.path.realpath(run_folder) for folder in folders):
        raise UserMistake(
            f"the {MANIFEST} of this run would lie beside the training shards, and mark these as poisoned: give "
            "another --trainer.default_root_dir"
        )


def read_marks(folders: Iterable[str], shards: Shards) -> list[PlanRecord]:
    """What is stamped into shards already. Nothing that a manifest names has to be known here.

    Args:
        folders: Where the shards lie.
        shards: They.

    Returns:
        The plans of the manifests there, with the keys of those of their pairs that the shards hold; a plan without
        such a pair is left out.

    Raises:
        UserMistake: If a manifest cannot be read, or a key that one names stands for two pairs.
    """
    records = [record for path in manifests_beside(folders) for record in read_plans(path)]
    named = {key for record in records for key in record.keys}
    if len(named) < sum(len(record.keys) for record in records):
        raise UserMistake(
            f"two plans of the {MANIFEST} beside the shards name one key: keys have to be unique over all shards"
        )
    present: set[str] = set()
    for keys in iter(shards.keys()) if named else ():
        found = named.intersection(keys)
        if twice := found & present:
            raise UserMistake(
                f"key {min(twice)!r:.200}, which the {MANIFEST} beside the shards names, stands for two pairs: keys "
                "have to be unique over all shards"
            )
        present |= found
    there = (replace(record, keys=[key for key in record.keys if key in present]) for record in records)
    return [record for record in there if record.keys]
