"""Score the pictures, and write and print what the scores say."""

from __future__ import annotations

from pathlib import Path

from .pictures import PictureSource
from .screening import Screening
from .table import print_summary, write_table


def write_answer(
    table: Path, screening: Screening, source: PictureSource, trusted: PictureSource | None, batch_size: int
) -> None:
    """Score pictures, the clean ones first, and write the table.

    Args:
        table: Where it goes.
        screening: The detectors on the model.
        source: The pictures.
        trusted: Pictures that are known to be clean; None where there are none.
        batch_size: How many are encoded at once.

    Raises:
        UserMistake: If none of the pictures can be read.
    """
    reference = screening.scored(trusted, batch_size, "Clean pictures") if trusted is not None else None
    scored = screening.scored(source, batch_size, "Pictures")
    verdicts = screening.judged(scored, reference)
    table.parent.mkdir(parents=True, exist_ok=True)
    write_table(table, scored, verdicts, screening.texts)
    print_summary(table, scored, verdicts, reference, screening.rate)
