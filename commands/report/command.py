"""``untrigger report``: one HTML file made from run folders."""

from __future__ import annotations

from pathlib import Path

from ...errors.importing import importing
from ..declaration import Command


def report(runs: list[str], out: str = "report.html") -> None:
    """Make one HTML page with the table and the figures of run folders.

    The page needs no network and no other file. Each run folder holds a results.csv; curves come from the CSV logger's
    metrics.csv, pictures from gallery.png, similarities and embeddings from evaluation.npz, suspects from suspects.csv
    and suspects.png, where the run has them. A defended run stands beside the one that its config.yaml started from.
    Each figure is also saved as PNG and PDF in the folder figures beside the page.

    Example:
        untrigger report runs/poisoned runs/cleaned --out report.html

    Args:
        runs: Run folders, in the order in which they are shown.
        out: The file to write, in place of an earlier page or of nothing.

    Raises:
        UserMistake: If no run is given, a folder is missing or holds no results, or the file cannot be written or is
            no page.
    """
    with importing():
        from .document import write_report  # brings matplotlib along

    write_report([Path(run) for run in runs], Path(out))
    print(f"wrote {out}, and its figures as PNG and PDF in {Path(out).parent / 'figures'}")


COMMAND = Command(report, words={"runs": "+"})
