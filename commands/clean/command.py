"""``untrigger clean``: the command."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from ...contracts import UserMistake
from ...errors.importing import importing
from ...files.reading import user_path
from ...files.writing import new_folder
from ...run_folder.suspects import SUSPECTS
from ...run_folder.ubt import UBTRecord
from ..check.command import check
from ..declaration import Command

_BEFORE, _AFTER, _MODEL = "check-before", "check-after", "model"


def clean(
    model: str,
    shards: str,
    folder: str,
    clean_shards: str | None = None,
    format: Literal["hf", "open_clip", "safetensors"] | None = None,
    encoder: str | None = None,
    ubt: str | None = None,
    cleanclip: str | None = None,
) -> int:
    """Check a model with the data that it was trained on, let it unlearn what was found, check again, and export.

    The folder gets model (the model, with its card), check-before and check-after (the answers on a page each);
    check-before/suspects.csv names the pairs that --data.exclude leaves out of a training. A model in which nothing is
    suspicious comes back as it is, byte for byte. Nothing is overwritten. A command that was stopped resumes when it is
    given again.

    Exit code: 0 where nothing is suspicious in the model that comes back, 3 otherwise, 2 on a mistake.

    Example:
        untrigger clean downloaded.pt 'scraped/{00000..00099}.tar' cleaned

    Args:
        model: A checkpoint of a run, a state dict of open_clip's or CleanCLIP's, or the folder of a model.
        shards: The pairs that it was trained on, poison included, as for --data.train_shards.
        folder: Where to; a new or an empty folder.
        clean_shards: Pairs that are known to be clean. With them the model is finetuned with CleanCLIP; without, it
            unlearns with UBT, which needs none.
        format: As for export; that of the model's own library unless given.
        encoder: What the model is, as for --model.encoder, where the file does not say.
        ubt: As for check.
        cleanclip: Config of CleanCLIP (YAML); configs/cleanclip/cifar10.yaml for small encoders and
            configs/cleanclip/cc3m_100k.yaml for others unless given.
    """
    with importing():  # they bring open_clip along, which takes seconds
        from ...lightning_modules.encoders import load_weights
        from ...lightning_modules.encoders.identify import open_encoder
        from ..check.examination import Subject
        from ..check.verdict import CLEAN
        from ..export.card import Checks
        from ..export.formats import exporter_for
        from ..export.handing_back import hand_back
        from .finetuning import finetune

    target, source, console = user_path(folder, "folder"), user_path(model, "model"), Console()
    back = _free(target)
    opened, name = open_encoder(model, encoder)
    exporter = exporter_for(opened, name, format)  # a format that cannot hold it is reported before anything starts
    verdict = check(model, shards, str(target / _BEFORE), name, ubt)
    if verdict == CLEAN:
        _copy(source, back, console)
        return verdict
    subject, unlearnt = Subject(source, name, target), target / _BEFORE / "ubt" / "last.ckpt"
    cleaned = unlearnt if clean_shards is None else finetune(subject, clean_shards, cleanclip, console)
    verdict = check(str(cleaned), shards, str(target / _AFTER), name, ubt)
    load_weights(opened, str(cleaned))
    checks = Checks(*(UBTRecord.read(target / step / "ubt") for step in (_BEFORE, _AFTER)))
    hand_back(exporter, cleaned, back, checks)
    _print_advice(checks.before, target / _BEFORE / SUSPECTS, verdict == CLEAN, console)
    return verdict


def _free(target: Path) -> Path:
    """Where the model comes back to, which has to be new."""
    back = target / _MODEL
    if target.is_file() or back.exists():
        raise UserMistake(f"{back} is there already, and nothing is overwritten: give another folder")
    return back


def _print_advice(found: UBTRecord, suspects: Path, is_clean: bool, console: Console) -> None:
    """Say which pairs to leave out of the next training, what that costs, and whether to trust the model."""
    console.print(
        f"The data is not clean yet. To train without what was found, and {found.left_out:,} of {found.pairs:,} pairs "
        f"fewer:\n    --data.exclude {escape(shlex.quote(str(suspects)))}",
        soft_wrap=True,
    )
    if not is_clean:
        console.print("It is still suspicious: see the second check. Do not trust it.")


def _copy(source: Path, target: Path, console: Console) -> None:
    """Copy a file into a new folder, or a folder as a whole, and say so."""
    with new_folder(target) as unfinished:
        if source.is_dir():
            shutil.copytree(source, unfinished, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, unfinished / source.name)
    console.print(f"{target}: the model as it came", soft_wrap=True)


COMMAND = Command(clean, words={"model": None, "shards": None, "folder": None})
