"""How often `untrigger check` is wrong, on the models of a bench.

    python benchmarks/check.py runs/bench/cifar10 runs/bench/cifar10_small --out runs/check

Takes every model of these folders that no defence has touched. With data, the alarm is that of the cell UBT, which is
the same run as a check's; records from before ``--since`` are of the method before its redesign and are left out.
Without data, each model is checked on the pictures that a check makes for itself. A line for each model is printed,
then the situations that ``commands/check/calibration.json`` holds, an attack each. Models that have been checked are
not checked again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_RECORDS = Path(__file__).parent / "cells"


def main() -> None:
    """Check, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benches", nargs="+", help="folders of a bench")
    parser.add_argument("--out", default="runs/check", help="where the checks go")
    parser.add_argument("--threshold", type=float, default=0.1, help="P-L1 norm below which there is an alarm")
    parser.add_argument("--since", default="2026-11-28", help="day of the first record of UBT that counts")
    arguments = parser.parse_args()
    rows = []
    for bench in map(Path, arguments.benches):
        cells = {path.parent: json.loads(path.read_text()) for path in sorted(bench.glob("*/cell.json"))}
        records = [json.loads(path.read_text()) for path in _RECORDS.glob(f"{bench.name}/*.json")]
        records = [record for record in records if record["defence"] == "UBT" and record["date"] >= arguments.since]
        for folder, cell in cells.items():
            if cell["defence"] == "none" and cell["attack"] not in ("surrogate", "patch"):
                rows.append(_row(folder, cell, records, Path(arguments.out) / bench.name / folder.name))
    _print(rows, arguments.threshold)


def _row(folder: Path, cell: dict[str, Any], records: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    """What is known of a model, and what the checks say."""
    ubt = max((other for other in records if other["parent"] == cell["cell"]), key=lambda it: it["date"], default=None)
    if not (out / "check.json").exists():
        command = [sys.executable, "-m", "untrigger.cli", "check", str(folder / "last.ckpt"), "--out", str(out)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode not in (0, 3):
            sys.exit(f"{out}: {done.stderr.strip().splitlines()[-1]}")
    answer = json.loads((out / "check.json").read_text())
    (result, *_) = cell["results"]
    return {
        "model": cell["cell"].rpartition("-")[0],
        "attack": cell["attack"],
        "poisoned": bool(result["attack_success_rate"]),
        "success": result["attack_success_rate"],
        "alarm": None if ubt is None else bool(ubt["logged"]["ubt/alarm"]),
        "norm": answer["inversion"]["p_l1_norm"],
        "seconds": answer["seconds"],
    }


def _print(rows: list[dict[str, Any]], threshold: float) -> None:
    table = Table(title=f"with data: alarm of UBT; without: P-L1 norm below {threshold}")
    for name in ("model", "ASR", "alarm with data", "P-L1 norm", "alarm without", "seconds"):
        table.add_column(name)
    for row in rows:
        success = f"{float(row['success']):.1%}" if row["success"] else "clean"
        alarm = {None: "", True: "yes", False: "no"}[row["alarm"]]
        small = "yes" if row["norm"] < threshold else "no"
        table.add_row(row["model"], success, alarm, f"{row['norm']:.4f}", small, f"{row['seconds']:.0f}")
    console = Console(width=100)
    console.print(table)
    with_data = _situations([(row, row["alarm"]) for row in rows if row["alarm"] is not None])
    without = _situations([(row, row["norm"] < threshold) for row in rows])
    print(json.dumps({"with_data": with_data, "without_data": without}, indent=2))


def _situations(checked: list[tuple[dict[str, Any], bool]]) -> list[dict[str, Any]]:
    """The models by attack, as ``calibration.json`` lists them."""
    found: dict[tuple[str, bool], list[bool]] = {}
    for row, alarm in checked:
        found.setdefault((row["attack"], row["poisoned"]), []).append(alarm)
    return [
        {"name": attack, "poisoned": poisoned, "models": len(alarms), "alarms": sum(alarms)}
        for (attack, poisoned), alarms in found.items()
    ]


if __name__ == "__main__":
    main()
