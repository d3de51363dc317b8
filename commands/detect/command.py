"""``untrigger detect``: the command."""

from __future__ import annotations

from ...command_line.own_modules import Imports, import_beside
from ...contracts import UserMistake
from ...errors.importing import importing
from ...files.lock import held_folder
from ...files.reading import shown, user_path
from ..asked import take_folder
from ..declaration import Command


def detect(
    runs: list[str],
    out: str = "detect",
    shards: str | None = None,
    detectors: str | None = None,
    isolation_epochs: int | None = None,
    imports: Imports = None,
) -> None:
    """Rank the training pairs of poisoned models by every detector there is, and say how well each ranks.

    ABL's loss, similarity, SafeCLIP's mixture, local density, spectral signatures, activation clustering and UBT's
    evidence see the model and its pairs alone. The run's poison.json says which pairs are poisoned; it is compared with
    the rankings afterwards, and without it there are rankings alone. The models stay as they are.

    The folder gets detection.csv (for each run and detector ROC AUC, average precision and precision at k) and a folder
    for each run, with scores.csv (every score of every pair, by key). A command that was stopped resumes when it is
    given again.

    Example:
        untrigger detect runs/badnet runs/blended --out detect

    Args:
        runs: Folders of finished runs, each with last.ckpt and config.yaml.
        out: Folder for the answer; a new or an empty one, or that of the same command.
        shards: The pairs that all of the models were trained on, as for --data.train_shards; what the config of each
            run names unless given.
        detectors: Config of the detectors (YAML); configs/pair_detectors/cifar10.yaml for small encoders and
            configs/pair_detectors/cc3m_rn50.yaml for others unless given.
        isolation_epochs: Epochs of the fresh model that ABL asks for its losses; 0 leaves it out, and with it what
            takes most of the time. As the config says unless given.
        imports: Modules of your own that are imported first, such as my_study or '[my_study, other]': a run's
            poison.json names their classes, and imports none.

    Raises:
        UserMistake: If a run cannot be ranked, or the folder holds something else.
    """
    with importing():  # they bring open_clip along, which takes seconds
        from .ranking import rank_pairs, subject_of
        from .table import print_table, write_table

    import_beside(imports)
    folder = user_path(out, "folder")
    subjects = [subject_of(user_path(run, "run folder"), shards) for run in dict.fromkeys(runs)]
    names = [subject.name for subject in subjects]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserMistake(f"two of the run folders are called {shown(twice)}: rank them in two commands")
    asked = {
        "runs": [subject.asked for subject in subjects],
        "detectors": detectors,
        "isolation_epochs": isolation_epochs,
    }
    with held_folder(folder, "--out"):
        take_folder(folder, asked, "command on the same runs")
        ranked = {s.name: rank_pairs(s, folder / s.name, detectors, isolation_epochs) for s in subjects}
        write_table(folder, ranked)
    print_table(folder, ranked)


COMMAND = Command(detect, words={"runs": "+"})
