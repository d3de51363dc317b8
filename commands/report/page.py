"""The content of a report, in the order of the page: the values that its template is filled with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from markupsafe import Markup
from matplotlib.figure import Figure

from ...run_folder.suspects import FirstSuspects
from ..summary import NO_DEFENCE, Summary, best, best_defences, summarise
from .drawing import file_name, plain, save, to_svg
from .feature_space import embedding_maps, read_space, similarity_histograms
from .figures import (
    Point,
    Tile,
    against_success,
    defence_name,
    heat_map,
    over_training,
)
from .pictures import data_uri
from .records import Record
from .runs import Run

_SUCCESS = "val/attack_success_rate"
_DOTS_PER_INCH = 96  # CSS


@dataclass(frozen=True)
class Drawn:
    """A figure in the page."""

    svg: Markup
    width: int
    """Its width at full size, in CSS pixels."""


@dataclass(frozen=True)
class Row:
    """A row of the table of results."""

    summary: Summary
    records: list[Record]
    best: frozenset[str]
    """Measures in which no other defence is better."""
    starred: bool


@dataclass(frozen=True)
class RunPart:
    """What the page shows of a run."""

    run: Run
    anchor: str
    records: list[Record]
    parent: str | None
    """The name of the run that it started from, where that is in the report."""
    training: Drawn | None
    suspects: FirstSuspects | None
    sheet: str | None


@dataclass(frozen=True)
class AttackPart:
    """What the page shows of an attack on a data set."""

    attack: str
    dataset: str
    anchor: str
    measured: bool
    """Whether the attack was measured at all; ``none`` stands for models without one."""
    rows: list[Row]
    target: str | None
    gallery: str | None
    similarity: Drawn | None
    embeddings: Drawn | None
    seed: str | None
    """The seed of the models that the figures show."""
    pictures: int
    """How many pictures they show, at most."""
    runs: list[RunPart]

    @property
    def shows_anything(self) -> bool:
        """Whether there is more to see than the rows of the table."""
        return bool(self.gallery or self.similarity or self.embeddings or self.runs)


class FigureBook:
    """Draws figures for the page and saves each for a paper.

    Args:
        folder: Where ``NAME.png`` and ``NAME.pdf`` go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: set[str] = set()

    def add(self, figure: Figure | None, *name: str) -> Drawn | None:
        """Save a figure under a stable name made of its labels, and draw it; None where there is none."""
        if figure is None:
            return None
        base = unique = file_name(*name)
        number = 2
        while unique in self._names:
            unique, number = f"{base}-{number}", number + 1
        self._names.add(unique)
        save(figure, self._folder, unique)
        # matplotlib escapes the names in it.
        return Drawn(Markup(to_svg(figure)), round(figure.get_size_inches()[0] * _DOTS_PER_INCH))


def scatter(records: Sequence[Record], book: FigureBook) -> Drawn | None:
    """Clean accuracy against attack success, where there are at least two models to compare."""
    figure = _against_success(records, "clean_accuracy", "clean accuracy")
    return book.add(figure, "accuracy-against-success")


def recovery(records: Sequence[Record], book: FigureBook) -> Drawn | None:
    """What is recovered against attack success, where at least two models have it."""
    return book.add(_against_success(records, "recovered", "recovered"), "recovered-against-success")


def _against_success(records: Sequence[Record], measure: str, name: str) -> Figure | None:
    several = len({record.dataset for record in records}) > 1
    points, models = [], set()
    for record in records:
        rates, before = _rates(record, measure), record.before and _rates(record.before, measure)
        if rates:
            attack = f"{record.attack}, {record.dataset}" if several else record.attack
            floor = record.rate("attack_success_floor")
            points.append(Point(attack, record.defence, *rates, before or None, floor))
            models.add((record.run.folder, record.head))
    return against_success(points, name) if len(models) > 1 else None


def heat_maps(records: Sequence[Record], book: FigureBook) -> list[tuple[str, Drawn]]:
    """For each data set with more than one cell, the grid of attacks and defences."""
    maps = []
    for dataset in dict.fromkeys(record.dataset for record in records):
        own = [record for record in records if record.dataset == dataset and _rates(record)]
        attacks = list(dict.fromkeys(record.attack for record in own))
        defences = list(dict.fromkeys(record.defence for record in own))
        defences.sort(key=lambda name: name != NO_DEFENCE)  # the models before come first
        tiles = {
            (attack, defence): _tile(cell)
            for attack in attacks
            for defence in defences
            if (cell := [record for record in own if (record.attack, record.defence) == (attack, defence)])
        }
        if len(tiles) > 1:
            drawn = book.add(heat_map(attacks, defences, tiles), "heat-map", dataset)
            maps += [(dataset, drawn)] if drawn else []
    return maps


def attack_parts(records: Sequence[Record], book: FigureBook) -> list[AttackPart]:
    """The page's part on each attack and data set, in the order of first appearance, with the runs first seen there."""
    rows = _rows(records)
    anchors = {folder: f"run-{index}" for index, folder in enumerate(dict.fromkeys(r.run.folder for r in records))}
    parts: list[AttackPart] = []
    seen: set[Path] = set()
    for index, (dataset, attack) in enumerate(dict.fromkeys((r.dataset, r.attack) for r in records)):
        own = [record for record in records if (record.dataset, record.attack) == (dataset, attack)]
        runs = {record.run.folder: record.run for record in own if record.run.folder not in seen}
        seen |= set(runs)
        shown = _before_and_after(own)
        spaces = [(record, space) for record in shown if (space := read_space(record)) is not None]
        titled = [(_title(record), space) for record, space in spaces]
        suffix = (dataset, attack)
        parts.append(
            AttackPart(
                attack,
                dataset,
                f"attack-{index}",
                measured=any(record.row["attack"] != "none" for record in own),
                rows=[row for row in rows if (row.summary.dataset, row.summary.attack) == (dataset, attack)],
                target=spaces[0][1].target if spaces else None,
                # Of a run that measured several attacks, one gallery shows them all.
                gallery=next((uri for run in runs.values() if run.gallery and (uri := data_uri(run.gallery))), None),
                similarity=book.add(similarity_histograms(titled), "similarity", *suffix),
                embeddings=book.add(embedding_maps(titled), "embeddings", *suffix),
                seed=spaces[0][0].seed if spaces else None,
                pictures=max((space.pictures for _, space in spaces), default=0),
                runs=[_run_part(run, records, anchors, book) for run in runs.values()],
            )
        )
    return parts


def _rows(records: Sequence[Record]) -> list[Row]:
    summaries = summarise(record.figures() for record in records)
    leading = {
        "clean_accuracy": best(summaries, "clean_accuracy", largest=True),
        "attack_success_rate": best(summaries, "attack_success_rate", largest=False),
        "recovered": best(summaries, "recovered", largest=True),
    }
    starred = best_defences(summaries)
    return [
        Row(
            summary,
            [
                r
                for r in records
                if (r.dataset, r.attack, r.defence) == (summary.dataset, summary.attack, summary.defence)
            ],
            frozenset(measure for measure, indices in leading.items() if index in indices),
            index in starred,
        )
        for index, summary in enumerate(summaries)
    ]


def _run_part(run: Run, records: Sequence[Record], anchors: dict[Path, str], book: FigureBook) -> RunPart:
    own = [record for record in records if record.run is run]
    before = next((record.before for record in own if record.before is not None), None)
    sheet = run.suspects.sheet if run.suspects else None
    return RunPart(
        run,
        anchors[run.folder],
        own,
        before.run.name if before else None,
        training=book.add(_training(run, own), "training", run.name),
        suspects=run.suspects,
        sheet=data_uri(sheet) if sheet else None,
    )


def _training(run: Run, records: Sequence[Record]) -> Figure | None:
    accuracy = list(run.curves.get("val/clean_accuracy", []))
    success = {key[len(_SUCCESS) + 1 :]: list(c) for key, c in run.curves.items() if key.startswith(f"{_SUCCESS}/")}
    attacks = {record.row["attack"] for record in records}
    if not success and _SUCCESS in run.curves:
        # A single attack is logged under the plain key only.
        success = {min(attacks) if len(attacks) == 1 else "mean over attacks": list(run.curves[_SUCCESS])}
    for record in records:
        rates, curve = record.before and _rates(record.before), success.get(record.row["attack"])
        if rates and curve and curve[0][0] > 0:
            curve.insert(0, (0, rates[0]))
            if accuracy and accuracy[0][0] > 0:
                accuracy.insert(0, (0, rates[1]))
    return over_training(accuracy, success, run.curves.get("train/loss", []))


def _before_and_after(records: Sequence[Record]) -> list[Record]:
    """One model without a defence, and for each defence the one that started from it, or the first there is."""
    zero_shot = [record for record in records if not record.head]
    before = next((record for record in zero_shot if record.defence == NO_DEFENCE), None)
    shown = [before] if before else []
    for defence in dict.fromkeys(record.defence for record in zero_shot if record.defence != NO_DEFENCE):
        own = [record for record in zero_shot if record.defence == defence]
        shown.append(
            next((record for record in own if before and record.before and record.before.run is before.run), own[0])
        )
    return shown


def _rates(record: Record, measure: str = "clean_accuracy") -> tuple[float, float] | None:
    """Attack success rate and another measure."""
    success, height = record.rate("attack_success_rate"), record.rate(measure)
    return None if success is None or height is None else (success, height)


def _tile(records: Sequence[Record]) -> Tile:
    changes_of = [(rates, record.before and _rates(record.before)) for record in records if (rates := _rates(record))]
    changes = [after[1] - before[1] for after, before in changes_of if before]
    return Tile(
        fmean(rates[0] for rates, _ in changes_of),
        fmean(rates[1] for rates, _ in changes_of),
        fmean(changes) if len(changes) == len(changes_of) else None,
        _mean(records, "attack_success_floor"),
        _mean(records, "recovered"),
    )


def _mean(records: Sequence[Record], measure: str) -> float | None:
    """A mean over all of the records; None where one lacks it."""
    values = [value for record in records if (value := record.rate(measure)) is not None]
    return fmean(values) if len(values) == len(records) else None


def _title(record: Record) -> str:
    rates = _rates(record)
    figures = f"\nASR {100 * rates[0]:.1f} %, CA {100 * rates[1]:.1f} %" if rates else ""
    return plain(defence_name(record.defence), 26) + figures
