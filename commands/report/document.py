"""The report as a whole: run folders in, one HTML file out, its figures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Template

from ...contracts import UserMistake
from ...files.reading import reading, shown
from ...files.tables import number
from ..pages import page_templates
from ..summary import Figure, own_measures
from .page import AttackPart, FigureBook, attack_parts, heat_maps, recovery, scatter
from .records import records_of
from .runs import read_runs

_UNKNOWN = "\N{EN DASH}"
_HEAD = b"<!doctype html>"
_OPEN_RUNS = 3  # the details of more runs are folded


def write_report(runs: Sequence[Path], out: Path) -> None:
    """Make one HTML page with the table and the figures of run folders, and the figures as files beside it.

    Args:
        runs: Run folders, in the order in which they are shown.
        out: The file to write, in place of an earlier page or of nothing; its folder is made where it is missing.
            Figures go to ``figures/`` in that folder.

    Raises:
        UserMistake: If no run is given, a folder is missing or holds no results, a file in it is not what it should be,
            or the report cannot be written or would replace a file that is no page.
    """
    if not runs:
        raise UserMistake("no run folder is given: name at least one folder that holds a results.csv")
    _check_replaceable(out)
    found = read_runs(runs)
    records = records_of(found)
    try:
        book = FigureBook(out.parent / "figures")
        page = _template().render(
            datasets=list(dict.fromkeys(record.dataset for record in records)),
            runs=found,
            unfold=len(found) <= _OPEN_RUNS,
            heat_maps=heat_maps(records, book),
            scatter=scatter(records, book),
            recovery=recovery(records, book),
            attacks=(attacks := attack_parts(records, book)),
            anchors=_anchors(attacks),
            rebound=any("rebound" in row.summary.figures for part in attacks for row in part.rows),
            stale=any(record.row.get("stale") for record in records),
            memory=any("peak_memory_mb" in row.summary.figures for part in attacks for row in part.rows),
            own=own_measures(row.summary for part in attacks for row in part.rows),
            twins=any("attack_success_floor" in row.summary.figures for part in attacks for row in part.rows),
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserMistake(f"the report cannot be written to {out}: {error.strerror}") from error


def _check_replaceable(out: Path) -> None:
    """Check that no file but a page is replaced, such as a run's results."""
    with reading("report", out):
        if not out.is_file():
            return
        with out.open("rb") as stream:
            head = stream.read(len(_HEAD)).lower()
    if head not in (b"", _HEAD):
        raise UserMistake(f"--out {shown(out)} is there already and is no HTML page: give a new file, as report.html")


def _template() -> Template:
    environment = page_templates()
    environment.filters |= {
        "percent": _percent,
        "rate": _rate,
        "duration": _duration,
        "count": _count,
        "memory": _memory,
    }
    return environment.get_template("report/report.html")


def _anchors(attacks: Sequence[AttackPart]) -> dict[Path, str]:
    return {part.run.folder: part.anchor for attack in attacks for part in attack.runs}


def _percent(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{100 * value:.1f} %"


def _rate(figure: Figure | None) -> str:
    if figure is None or figure.spread is None:
        return _percent(figure.mean if figure else None)
    return f"{100 * figure.mean:.1f} ± {100 * figure.spread:.1f} %"


def _count(value: Figure | str | None) -> str:
    found = value.mean if isinstance(value, Figure) else number(value)
    return _UNKNOWN if found is None else f"{found:,.0f}"


def _memory(figure: Figure | None) -> str:
    return _UNKNOWN if figure is None else f"{figure.mean / 1000:.1f} GB"


def _duration(value: Figure | str | None) -> str:
    seconds = value.mean if isinstance(value, Figure) else number(value)
    if seconds is None:
        return _UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
