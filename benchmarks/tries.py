"""Which setting of each defence is taken, from the records of bench/reference_tries.yaml.

    python benchmarks/tries.py

Of a method that setting is taken, whose clean accuracy and accuracy under the trigger (of pictures whose label is not
the target) add up highest in the mean over the attacks that all of its settings were tried on. The attack success is
printed and not asked for.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
FIGURES = {"CA": "clean_accuracy", "ASR": "attack_success_rate", "under the trigger": "non_target_triggered_accuracy"}


Figures = Mapping[str, str]
"""Of a record, by the column's name."""


def tried(cells: Path, names: Sequence[str]) -> dict[str, dict[str, dict[str, Figures]]]:
    """By method, setting and attack, the figures of a record."""
    found: dict[str, dict[str, dict[str, Figures]]] = {}
    for path in sorted(cells.glob("*--*.json")):
        record = json.loads(path.read_text())
        method = next((name for name in names if record["defence"].startswith(f"{name}-")), None)
        if method is not None:
            setting = record["defence"].removeprefix(f"{method}-")
            found.setdefault(method, {}).setdefault(setting, {})[record["attack"]] = record["results"][-1]
    return found


def taken(settings: Mapping[str, Mapping[str, Figures]]) -> str | None:
    """The setting of a method that is taken; None where there is nothing to choose by."""
    attacks = set.intersection(*(set(tried_on) for tried_on in settings.values()))
    if len(settings) < 2 or not attacks:
        return None
    return max(settings, key=lambda setting: sum(_worth(settings[setting][attack]) for attack in attacks))


def _worth(figures: Figures) -> float:
    return float(figures["clean_accuracy"]) + float(figures["non_target_triggered_accuracy"])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    records = ROOT / "benchmarks/cells/reference_tries"
    parser.add_argument("--cells", type=Path, default=records, help="folder of the records")
    arguments = parser.parse_args()
    names = list(yaml.safe_load((ROOT / "configs/bench/reference.yaml").read_text())["defences"])
    found = tried(arguments.cells, names)
    every = sorted({attack for settings in found.values() for tried_on in settings.values() for attack in tried_on})
    columns = [f"{attack}: {' / '.join(FIGURES)}" for attack in every]
    print("| method | setting |", " | ".join(columns), "|")
    print("|---|---|" + "---|" * len(columns))
    for method in sorted(found, key=names.index):
        best = taken(found[method])
        for setting, tried_on in found[method].items():
            cells = [_shown(tried_on[attack]) if attack in tried_on else "" for attack in every]
            name = f"**{setting}**" if setting == best else setting
            print(f"| {method} | {name} |", " | ".join(cells), "|")


def _shown(figures: Figures) -> str:
    return " / ".join(f"{100 * float(figures[figure]):.1f}" for figure in FIGURES.values())


if __name__ == "__main__":
    main()
