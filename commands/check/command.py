"""``untrigger check``: the command."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from ...errors.importing import importing
from ...files.lock import held_folder
from ...files.reading import read_json, reading, user_path
from ...files.writing import write_text
from ..asked import take_folder
from ..declaration import Command

_ANSWER = "check.json"


def check(
    model: str,
    shards: str | None = None,
    out: str = "check",
    encoder: str | None = None,
    ubt: str | None = None,
    invert: bool = False,
    pictures: str | None = None,
) -> int:
    """Check whether a model of unknown origin, and the data that it was trained on, are suspicious.

    With data, UBT looks for poisoned pairs: half of a word's suspects are pushed away from it; where the other half
    moves too, and to many words, there is a backdoor. Local density ranks them beside it. Without data, DECREE
    inverts the trigger of the image encoder, with any pictures. Neither needs a clean pair, a label or the trigger. The
    model stays as it is, and nothing in it is run.

    The folder gets check.html (the answer on a page), check.json, suspects.csv (which --data.exclude takes) and
    suspects.png, trigger.png where one was recovered, and the runs. A check that was stopped resumes when it is asked
    for again.

    Exit code: 0 where nothing is suspicious, 3 otherwise, 2 on a mistake.

    Example:
        untrigger check downloaded.pt 'scraped/{00000..00099}.tar' --out downloaded-check

    Args:
        model: A checkpoint of a run, a state dict of open_clip's or CleanCLIP's, or the folder of a model.
        shards: The pairs that it was trained on, as for --data.train_shards.
        out: Folder for the answer; a new or an empty one, or that of the same check.
        encoder: What the model is, as for --model.encoder, where the file does not say.
        ubt: Config of the unlearning (YAML); configs/ubt/cifar10.yaml for small encoders and
            configs/ubt/finetune_rn50.yaml for others unless given.
        invert: With data, invert the trigger as well.
        pictures: Shards with the pictures for that; those of the data, or else generated ones, unless given.
    """
    with importing():  # they bring open_clip along, which takes seconds
        from ...lightning_modules.encoders.identify import open_encoder
        from .examination import content_of

    folder = user_path(out, "folder")
    _, name = open_encoder(model, encoder)  # a model that cannot be read is reported before anything starts
    given = {"model": model, "shards": shards, "encoder": name, "ubt": ubt, "invert": invert, "pictures": pictures}
    asked = given | {"content": content_of(model, ubt, shards, pictures)}
    with held_folder(folder, "--out"):
        take_folder(folder, asked, "check of the same model and data")
        if (answer := _answer(folder)) is not None:
            print(f"{folder / 'check.html'} has the answer to that: {answer['verdict']}")
            return int(answer["exit_code"])
        return _examine(model, name, folder, shards, ubt, pictures, invert)


def _examine(
    model: str, encoder: str, folder: Path, shards: str | None, ubt: str | None, pictures: str | None, invert: bool
) -> int:
    """Ask what is to be asked, and leave the answer in the folder; the exit code."""
    with importing():
        from rich.console import Console
        from rich.markup import escape

        from .examination import Subject, examine_pairs, invert_trigger
        from .page import print_verdict, write_page
        from .verdict import Verdict, name_of

    started, console = time.perf_counter(), Console()
    subject = Subject(user_path(model, "model"), encoder, folder)
    console.print(f"{escape(name_of(model))}: {escape(encoder)}")
    pairs = inversion = None
    if shards is not None:
        console.rule("Looking for poisoned pairs with UBT")
        pairs = examine_pairs(subject, shards, ubt)
    if shards is None or invert:
        console.rule("Inverting the trigger with DECREE")
        inversion = invert_trigger(subject, pictures or shards)
    verdict = Verdict(model, encoder, pairs, inversion, shards, time.perf_counter() - started)
    _collect(folder)
    write_page(verdict, folder)
    write_text(folder / _ANSWER, json.dumps(verdict.as_json(), indent=2) + "\n")
    print_verdict(verdict, folder, console)
    return verdict.exit_code


def _answer(folder: Path) -> dict[str, Any] | None:
    """The answer of a check that has ended; None where it is to be begun or resumed."""
    if not (folder / _ANSWER).exists():
        return None
    answer: dict[str, Any] = read_json(folder / _ANSWER, "answer of a check")
    with reading("answer of a check", folder / _ANSWER):
        return {"verdict": str(answer["verdict"]), "exit_code": int(answer["exit_code"])}


def _collect(folder: Path) -> None:
    """Bring what people look at out of the runs."""
    for found in ("ubt/suspects.csv", "ubt/suspects.png", "decree/trigger.png"):
        if (folder / found).exists():
            shutil.copyfile(folder / found, folder / Path(found).name)


COMMAND = Command(check, words={"model": None, "shards": "?"}, switches=["invert"])
