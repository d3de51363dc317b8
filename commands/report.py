"""The report: one HTML file made from run folders."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure

from ..contracts import UserMistake
from .report_figures import accuracy_against_success, loss_over_training, rates_over_training, to_svg
from .report_runs import Run, read_run

_SUCCESS = "val/attack_success_rate"
_UNKNOWN = "\N{EN DASH}"


@dataclass(frozen=True)
class _Section:
    """What the template shows of a run."""

    name: str
    rates: Markup | None
    loss: Markup | None
    gallery: str | None


def report(runs: list[str], out: str = "report.html") -> None:
    """Make one HTML page with the table and the figures of run folders.

    The page needs no network and no other file. Each run folder holds a results.csv; the curves come from the CSV
    logger's metrics.csv and the pictures from gallery.png, where the run has them.

    Example:
        untrigger report runs/poisoned runs/cleaned --out report.html

    Args:
        runs: Run folders, in the order in which they are shown.
        out: The file to write.

    Raises:
        UserMistake: If no run is given, a folder is missing or holds no results, or the file cannot be written.
    """
    write_report([Path(run) for run in runs], Path(out))
    print(f"wrote {out}")


def write_report(runs: Sequence[Path], out: Path) -> None:
    """Make one HTML page with the table and the figures of run folders.

    Args:
        runs: Run folders, in the order in which they are shown.
        out: The file to write; its folder is made where it is missing.

    Raises:
        UserMistake: If no run is given, a folder is missing or holds no results, or the file cannot be written.
    """
    if not runs:
        raise UserMistake("no run folder is given: name at least one folder that holds a results.csv")
    found = [read_run(run) for run in runs]
    page = _template().render(
        rows=[(run.name, row) for run in found for row in run.rows],
        comparison=_comparison(found),
        sections=[_section(run) for run in found],
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserMistake(f"the report cannot be written to {out}: {error.strerror}") from error


def _template() -> Template:
    # Names in a run folder are other people's text: everything that is not Markup is escaped.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": _percent, "duration": _duration, "count": _count}
    return environment.from_string(files(__package__).joinpath("report.html").read_text(encoding="utf-8"))


def _section(run: Run) -> _Section:
    accuracy = run.curves.get("val/clean_accuracy", [])
    success = {key[len(_SUCCESS) + 1 :]: curve for key, curve in run.curves.items() if key.startswith(f"{_SUCCESS}/")}
    if not success and _SUCCESS in run.curves:
        # A single attack is logged under the plain key only.
        attacks = {row["attack"] for row in run.rows}
        success = {attacks.pop() if len(attacks) == 1 else "mean over attacks": run.curves[_SUCCESS]}
    loss = run.curves.get("train/loss", [])
    return _Section(
        run.name,
        rates=_inline(rates_over_training(accuracy, success)) if accuracy or success else None,
        loss=_inline(loss_over_training(loss)) if len(loss) > 1 else None,
        gallery=b64encode(run.gallery).decode() if run.gallery else None,
    )


def _comparison(runs: Sequence[Run]) -> Markup | None:
    """The scatter, where there are at least two models to compare."""
    rows = [row for run in runs for row in run.rows]
    # What all rows share does not help to tell them apart.
    telling = [column for column in ("dataset", "attack", "seed") if len({row[column] for row in rows}) > 1]
    points, models = [], set()
    for place, row in ((run.name, row) for run in runs for row in run.rows):
        success, accuracy = _float(row["attack_success_rate"]), _float(row["clean_accuracy"])
        if success is not None and accuracy is not None:
            name = ", ".join(f"seed {row[c]}" if c == "seed" else row[c] for c in telling) or row["attack"]
            points.append((name, row["defence"], success, accuracy))
            models.add((place, row["defence"], row["seed"]))
    return _inline(accuracy_against_success(points)) if len(models) > 1 else None


def _inline(figure: Figure) -> Markup:
    return Markup(to_svg(figure))  # matplotlib escapes the names in it


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _percent(text: str) -> str:
    value = _float(text)
    return _UNKNOWN if value is None else f"{100 * value:.1f} %"


def _count(text: str) -> str:
    value = _float(text)
    return _UNKNOWN if value is None else f"{value:,.0f}"


def _duration(text: str) -> str:
    value = _float(text)
    if value is None:
        return _UNKNOWN
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
