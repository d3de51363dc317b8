"""Which setting of each defence is taken, from the records of bench/reference_tries.yaml.

    python benchmarks/tries.py

Of a method that setting is taken, whose clean accuracy and accuracy under the trigger (of pictures whose label is not
the target) add up highest in the mean over the attacks that all of its settings were tried on. The attack success is
printed and not asked for.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
FIGURES = {"CA": "clean_accuracy", "ASR": "attack_success_rate", "under the trigger": "non_target_triggered_accuracy"}


def methods(folder: Path) -> list[str]:
    """The names of the defences, the longest first."""
    bench = yaml.safe_load((folder / "reference.yaml").read_text())
    return sorted(bench["defences"], key=len, reverse=True)


def tried(cells: Path, names: list[str]) -> dict[str, dict[str, dict[str, dict[str, str]]]]:
    """By method, setting and attack, the figures of a record."""
    found: dict[str, dict[str, dict[str, dict[str, str]]]] = {}
    for path in sorted(cells.glob("*-frog-seed1--*.json")):
        record: dict[str, Any] = json.loads(path.read_text())
        method = next((name for name in names if record["defence"].startswith(f"{name}-")), None)
        if method is not None:
            setting = record["defence"].removeprefix(f"{method}-")
            attack = record["attack"].removesuffix("-frog")
            found.setdefault(method, {}).setdefault(setting, {})[attack] = record["results"][-1]
    return found


def worth(of_attacks: dict[str, dict[str, str]], attacks: list[str]) -> float:
    """What a setting is chosen by."""
    kept = ("clean_accuracy", "non_target_triggered_accuracy")
    return sum(float(of_attacks[attack][figure]) for attack in attacks for figure in kept) / len(attacks)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    records = ROOT / "benchmarks/cells/reference_tries"
    parser.add_argument("--cells", type=Path, default=records, help="folder of the records")
    arguments = parser.parse_args()
    names = methods(ROOT / "configs/bench")
    found = tried(arguments.cells, names)
    every = sorted({attack for settings in found.values() for tried_on in settings.values() for attack in tried_on})
    columns = [f"{attack}: {' / '.join(FIGURES)}" for attack in every]
    print("| method | setting |", " | ".join(columns), "|")
    print("|---|---|" + "---|" * len(columns))
    for method in sorted(found, key=names.index, reverse=True):
        settings = found[method]
        common = [attack for attack in every if all(attack in tried_on for tried_on in settings.values())]
        best = (
            max(settings, key=lambda setting: worth(settings[setting], common))
            if common and len(settings) > 1
            else None
        )
        for setting, tried_on in settings.items():
            cells = [_shown(tried_on[attack]) if attack in tried_on else "" for attack in every]
            name = f"**{setting}**" if setting == best else setting
            print(f"| {method} | {name} |", " | ".join(cells), "|")


def _shown(figures: dict[str, str]) -> str:
    return " / ".join(f"{100 * float(figures[figure]):.1f}" for figure in FIGURES.values())


if __name__ == "__main__":
    main()
