"""The tables of a bench, and its report: made of records, so that every number has its run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from ...files.printable import printable
from ...run_folder.results import RESULTS, add_results, read_results, write_results
from ..report.document import write_report
from ..summary import Figure, Summary, best, own_measures, summarise
from .found import found_table, tally
from .grid import Cell
from .runner import BenchPaths
from .twins import CEILING, FLOOR, REBOUND, REBOUND_FLOOR, RECOVERED

_RATES = {"clean_accuracy": "CA", "attack_success_rate": "ASR", "clean_target_rate": "clean target rate"}
_BESIDE = {
    FLOOR: "ASR floor",
    RECOVERED: "recovered",
    CEILING: "ceiling",
    REBOUND: "rebound",
    REBOUND_FLOOR: "rebound floor",
}
_FOUND = {"alarm": "alarms", "roc_auc": "ROC AUC", "precision": "precision", "reported_recall": "reported recall"}
_LOGGED = {"alarm": "ubt/alarm"} | {
    measure: f"suspects/{measure}" for measure in ("roc_auc", "precision", "reported_recall")
}
_COSTS = {"seconds": "seconds", "samples_seen": "samples seen", "peak_memory_mb": "peak memory (MB)"}
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    | {"[": "{[}", "*": "{*}"}  # which the end of the row before would take for its own
)
_STALE = (
    "Seeds marked as stale were run by other code than this, or start from such a run: `--rerun stale` runs them anew."
)
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\|*_`<>[]"})


def write_tables(cells: Sequence[Cell], paths: BenchPaths, console: Console) -> None:
    """Write results.csv, results.md, results.tex and report.html of the finished cells of a grid.

    Args:
        cells: The grid.
        paths: Where its runs and records are.
        console: Where to say what was written.
    """
    finished = [
        (cell, record | {"results": paths.results(cell)})
        for cell in cells
        if cell.listed and (record := paths.finished(cell)) is not None
    ]
    if not finished:
        console.print("no cell is finished yet: there is nothing to tabulate")
        return
    paths.tables.mkdir(parents=True, exist_ok=True)
    rows = [row for _, record in finished for row in record["results"]]
    write_results(paths.tables, rows)
    records = [record for _, record in finished]
    summaries = summarise(labelled_rows(records))
    table = markdown_table(summaries)
    if any(row.get("stale") for row in rows):
        table += f"\n{_STALE}\n"
    (paths.tables / "results.md").write_text(
        f"{table}\n{found_section(records)}{_runs_list(records)}", encoding="utf-8"
    )
    (paths.tables / "results.tex").write_text(latex_table(summaries), encoding="utf-8")
    console.print(table, markup=False, highlight=False, soft_wrap=True)
    kept = [(paths.run(cell), record) for cell, record in finished if (paths.run(cell) / RESULTS).exists()]
    for run, record in kept:
        if record["results"] != read_results(run):
            add_results(run, record["results"])  # with what the twin has
    if kept:
        write_report([run for run, _ in kept], paths.tables / "report.html")
        console.print(f"{paths.tables}/report.html", markup=False, highlight=False)


def labelled_rows(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of results under the labels of the grid, which distinguish what the columns do not.

    A second row of a run, such as that of a head, keeps what its defence's name has more than the first one's.

    Args:
        records: Records of finished cells.

    Returns:
        A row for each row of results, with the label of its attack and its defence, the peak memory, and what a
        defence has found that names suspects. The seed of one that was made by other code is marked as stale.
    """
    rows = []
    for record in records:
        attacks = list(dict.fromkeys(row["attack"] for row in record["results"]))
        first = record["results"][0]["defence"]
        for row in record["results"]:
            attack = record["attack"] if len(attacks) == 1 else f"{record['attack']}: {row['attack']}"
            more = row["defence"].removeprefix(first) if row["defence"].startswith(first) else f" {row['defence']}"
            defence = f"{record['defence']}{more}"
            logged = record.get("logged", {})
            found = {measure: logged.get(key) for measure, key in _LOGGED.items()}
            memory = {"peak_memory_mb": record["peak_memory_mb"]}
            seed = f"{row['seed']} (stale)" if row.get("stale") else row["seed"]
            rows.append({**row, **found, **memory, "attack": attack, "defence": defence, "seed": seed})
    return rows


def markdown_table(rows: Sequence[Summary]) -> str:
    """A table in Markdown: mean and sample standard deviation over seeds, an attack's best values in bold.

    Args:
        rows: As `summarise` returns them.

    Returns:
        Lines.
    """
    headings = [_plain_markdown(name) for name in _headings(rows)]
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(cells) + " |" for cells in _cells(rows, " ± ", "**{}**", _plain_markdown)]
    return "\n".join(lines) + "\n"


def found_section(records: Sequence[Mapping[str, Any]]) -> str:
    """Which backdoors a defence has found, in Markdown; empty where none has looked for any."""
    table = found_table(records)
    if not table:
        return ""
    lines = ["| " + " | ".join(map(_plain_markdown, row)) + " |" for row in table]
    lines.insert(1, "|" + "---|" * len(table[0]))
    return "Backdoors found:\n\n" + "\n".join(lines) + f"\n\n{tally(records)}\n\n"


def latex_table(rows: Sequence[Summary]) -> str:
    """The same in LaTeX, for the package booktabs.

    Args:
        rows: As `summarise` returns them.

    Returns:
        A ``tabular`` environment.
    """
    headings = _headings(rows)
    heading = " & ".join(_plain_latex(name) for name in headings)
    lines = [f"\\begin{{tabular}}{{lll{'r' * (len(headings) - 3)}}}", "\\toprule", f"{heading} \\\\", "\\midrule"]
    lines += [" & ".join(cells) + " \\\\" for cells in _cells(rows, " $\\pm$ ", "\\textbf{{{}}}", _plain_latex)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _cells(rows: Sequence[Summary], plus_minus: str, bold: str, plain: Callable[[str], str]) -> Iterator[Sequence[str]]:
    marked = {
        "clean_accuracy": best(rows, "clean_accuracy", largest=True),
        "attack_success_rate": best(rows, "attack_success_rate", largest=False),
        RECOVERED: best(rows, RECOVERED, largest=True),
    }
    for index, row in enumerate(rows):
        cells = [plain(row.attack), plain(row.defence), plain(", ".join(row.seeds))]
        for measure in (*_RATES, *_present(rows, _BESIDE)):
            text = _text(row.figures.get(measure), 100, 1, plus_minus)
            cells.append(bold.format(text) if index in marked.get(measure, ()) else text)
        shares = (*_present(rows, _FOUND), *own_measures(rows))
        cells += [_text(row.figures.get(measure), 100, 1, plus_minus) for measure in shares]
        cells += [_text(row.figures.get(measure), 1, 0, plus_minus) for measure in _COSTS]
        yield cells


def _headings(rows: Sequence[Summary]) -> list[str]:
    rates = [*_RATES.values(), *_present(rows, _BESIDE).values(), *_present(rows, _FOUND).values()]
    rates += [name.replace("_", " ") for name in own_measures(rows)]
    return ["attack", "defence", "seeds", *(f"{name} (%)" for name in rates), *_COSTS.values()]


def _present(rows: Sequence[Summary], measures: Mapping[str, str]) -> dict[str, str]:
    """The measures, with their headings, that any row has: of other cells, or of a defence that names suspects."""
    return {measure: name for measure, name in measures.items() if any(measure in row.figures for row in rows)}


def _text(figure: Figure | None, factor: float, digits: int, plus_minus: str) -> str:
    if figure is None:
        return ""
    text = f"{factor * figure.mean:,.{digits}f}"
    return f"{text}{plus_minus}{factor * figure.spread:,.{digits}f}" if figure.spread is not None else text


def _runs_list(records: Iterable[Mapping[str, Any]]) -> str:
    """Which runs a row of the table is of."""
    runs: dict[tuple[str, str], list[str]] = {}
    for record in records:
        runs.setdefault((record["attack"], record["defence"]), []).append(record["cell"])
    lines = (
        f"- {_plain_markdown(', '.join(who))}: {', '.join(f'`{cell}`' for cell in ids)}" for who, ids in runs.items()
    )
    return "Runs:\n\n" + "\n".join(lines) + "\n"


def _plain_markdown(text: str) -> str:
    return printable(text).translate(_MARKDOWN)


def _plain_latex(text: str) -> str:
    return printable(text).translate(_LATEX)
