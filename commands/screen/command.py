"""``untrigger screen``: the command."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...command_line.own_modules import Imports, import_beside
from ...contracts import UserMistake
from ...errors.importing import importing
from ...files.reading import reading, shown, user_path
from ..declaration import Command

_HEAD = b"key,class,"
"""How a table of this command begins; no other file is replaced."""


def screen(
    model: str,
    pictures: str,
    clean: str | None = None,
    out: str = "screen.csv",
    rate: float = 0.01,
    classes: str | None = None,
    templates: Literal["cifar10", "imagenet"] = "cifar10",
    detectors: list[str] | None = None,
    encoder: str | None = None,
    batch_size: int = 64,
    imports: Imports = None,
) -> None:
    """Say which pictures that a model is shown look triggered, at a stated rate of false alarms.

    BDetCLIP, Subspace Detection and BackdoorIDS score each picture; none of them knows a trigger or a target. With
    --clean, pictures of the same kind that are known to be clean, thresholds are conformal: of clean pictures no more
    than --rate are flagged on average, whatever the model. Without, the most suspicious share of the pictures at hand
    is flagged, --rate of them at most: a ranking, which does not say whether any picture is triggered.

    The table has for each picture its key, the class that the model takes it for, each detector's score and p value,
    and whether it is flagged; the most suspicious come first. Nothing in the model's file is run.

    Example:
        untrigger screen downloaded.pt uploads --classes classnames.txt --clean trusted

    Args:
        model: A checkpoint of a run, a state dict of open_clip's or CleanCLIP's, or the folder of a model.
        pictures: A folder of pictures (JPEG, PNG, WebP), shards as for --data.train_shards, or a zero-shot set.
        clean: Likewise, pictures of the same kind that are known to be clean, and none of those.
        out: The table to write (CSV), in place of an earlier one or of nothing.
        rate: Share of clean pictures that may be flagged, in (0, 1).
        classes: File with the name of a class on each line; the zero-shot set's own unless given. Without classes,
            there is BackdoorIDS alone.
        templates: The captions that say what a class is; the zero-shot set's own where it has them.
        detectors: Which of bdetclip, subspace, backdoor_ids and those of --imports; all that can be asked unless given.
        encoder: What the model is, as for --model.encoder, where the file does not say.
        batch_size: Pictures that are encoded at once.
        imports: Modules of your own with more detectors, such as my_study or '[my_study, other]'.

    Raises:
        UserMistake: If something cannot be read, the table would replace another file, or so low a rate takes more
            pictures than there are.
    """
    target = _table_path(out, rate, batch_size)
    with importing():  # they bring open_clip along, which takes seconds
        from ...lightning_modules.encoders.identify import open_encoder
        from .answer import write_answer
        from .choice import chosen_detectors
        from .pictures import opened_pictures
        from .screening import Screening, chosen_texts

    import_beside(imports)
    source, trusted = opened_pictures(pictures, clean)
    texts = chosen_texts(source, classes, templates)
    kinds = chosen_detectors(detectors, texts)
    opened, _ = open_encoder(str(user_path(model, "model")), encoder)
    screening = Screening(opened, texts, kinds, rate)
    screening.check_numbers(len(source), len(trusted) if trusted is not None else None)
    write_answer(target, screening, source, trusted, batch_size)


def _table_path(out: str, rate: float, batch_size: int) -> Path:
    """Where the table goes, once the options are seen to be in range, and no file but an earlier table is there."""
    if not 0 < rate < 1:
        raise UserMistake(f"--rate is {rate}, not above 0 and below 1")
    if batch_size < 1:
        raise UserMistake(f"--batch_size is {batch_size}, not at least 1")
    target = user_path(out, "table")
    if target.is_dir():
        raise UserMistake(f"{shown(target)} is a folder: give the name of a table, such as --out screen.csv")
    if target.exists():
        with reading("table", target), target.open("rb") as stream:
            head = stream.read(len(_HEAD))
        if head not in (b"", _HEAD):
            raise UserMistake(
                f"--out {shown(target)} is there already and is no table of untrigger screen: give a new file"
            )
    return target


COMMAND = Command(screen, words={"model": None, "pictures": None})
