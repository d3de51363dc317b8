"""The model card: Hugging Face's front matter, and what a reader must know of the model."""

from __future__ import annotations

import re
from typing import NamedTuple

from huggingface_hub import EvalResult, ModelCardData

from ... import __version__
from ...files.printable import printable
from ...files.tables import number
from ...lightning_modules.encoders import Encoder, has_weights
from ...run_folder.results import HEAD
from ...run_folder.ubt import UBTRecord
from .exporter import Exporter
from .history import History, suspects_of

_DONE = {
    "UBT": "It unlearnt a suspected backdoor with UBT (arXiv 2403.16257, 2409.19526).",
    "CleanCLIP": "It was finetuned on pairs that were taken for clean, with CleanCLIP (arXiv 2303.03323).",
    "SupervisedFinetune": "Its image encoder was finetuned on labelled pictures (arXiv 2303.03323).",
    "PoisonedCLIP": "It was trained on pictures with captions, and no defence was applied.",
    "ABL": "Pairs that are learnt first were isolated and unlearnt with ABL (arXiv 2110.11571).",
    "FinePruning": "Dormant units were removed, and it was finetuned (fine-pruning, arXiv 1805.12185).",
    "PAR": "Its features were moved away from what they were, and recovered, with PAR (arXiv 2412.00727).",
    "RVPT": "Its weights stayed as they were, and prompts were added to its image tower with RVPT (arXiv 2412.20392).",
    "RoCLIP": "It was trained on pictures with captions with RoCLIP (arXiv 2303.06854), which is to resist poison.",
    "SafeCLIP": "It was trained on pictures with captions with SafeCLIP (arXiv 2310.05862), which is to resist poison.",
    "TBAR": "The task vector of given pairs was subtracted from its weights with TBAR (arXiv 2510.14845).",
    "LinearProbe": "Nothing: a head was trained on its features, which is not in this folder.",
    "LocalDensityCLIP": "Nothing: training pairs were ranked by it, and it stayed as it was.",
    "PairDetectors": "Nothing: training pairs were ranked by it, and it stayed as it was.",
    "BadCLIP": "Nothing: a trigger was optimised against it, and it stayed as it was.",
    "InverTune": "A suspected backdoor was inverted and tuned out of it with InverTune (arXiv 2506.12411).",
    "TargetNaming": "Nothing: the target of a backdoor was looked for in it, and it stayed as it was.",
    "DECREE": "Nothing: a trigger was looked for in it, and it stayed as it was.",
}
_FROM_SCRATCH = {
    "CleanCLIP": "It was trained from random weights, with the losses of CleanCLIP (arXiv 2303.03323).",
    "SupervisedFinetune": "Its image encoder was trained from random weights on labelled pictures.",
}
"""Of classes that finetune, where they started from nothing."""
_PLANTED = (
    "**Its training data was poisoned on purpose (the checkpoint is marked). Use it for research on backdoors alone, "
    "and leave this mark where it is.**"
)
_RATES = {
    "clean_accuracy": "clean accuracy",
    "attack_success_rate": "attack success rate",
    "clean_target_rate": "clean target rate",
    "non_target_triggered_accuracy": "accuracy under the trigger, of other classes than the target",
}
_MAX_LENGTH = 80


class Checks(NamedTuple):
    """What two checks without ground truth said of a model, on the data that it was trained on."""

    before: UBTRecord
    after: UBTRecord


def model_card(
    title: str,
    encoder: Encoder,
    name: str,
    exporter: Exporter,
    history: History | None,
    marked: bool,
    checks: Checks | None = None,
) -> str:
    """Write the card of an exported model.

    Args:
        title: The name of the folder.
        encoder: The model.
        name: Its encoder's name, ``FAMILY:NAME``.
        exporter: What wrote the folder.
        history: What is known of its run.
        marked: Whether its training data was poisoned on purpose.
        checks: What it was found to be before and after it was cleaned, where that is known.

    Returns:
        Markdown with YAML front matter. Text from files is escaped.
    """
    data = ModelCardData(
        library_name=exporter.library,
        pipeline_tag="zero-shot-image-classification",
        tags=["clip", "backdoor", "untrigger"],
        model_name=title,
        eval_results=_eval_results(history),
        ignore_metadata_errors=False,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {plain(title)}",
        f"A CLIP model, {plain(_without_folder(name))}, exported by Untrigger {__version__}.",
        "## What was done",
        _done(history, name) + (f"\n\n{_PLANTED}" if marked else ""),
        "## What was found",
        _found(history, checks),
        *(["## How that was checked", checked] if (checked := _checked(history, checks)) else []),
        "## What was measured",
        _measured(history),
        "## How to load it",
        exporter.usage.strip(),
        f"Pictures are squares of {encoder.image_size} pixels (the centre cropped, then resized), of mean "
        f"{_numbers(encoder.mean)} and standard deviation {_numbers(encoder.std)} per channel, in [0, 1]. Captions "
        f"have at most {encoder.context_length} tokens, embeddings {encoder.embedding_dim} dimensions.",
    ]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Text of unknown origin that Markdown, HTML and a terminal leave alone, cut to 80 characters."""
    shown = printable(text, _MAX_LENGTH).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~:-])", r"\\\1", shown)


def _done(history: History | None, name: str) -> str:
    """What was done to a model whose encoder has this name."""
    if history is None:
        return "Nothing that is known: no files of a run lay beside the checkpoint."
    training = _DONE.get(history.method, f"It was trained with {plain(history.method)}.")
    if history.started_from is None and not has_weights(name):
        training = _FROM_SCRATCH.get(history.method, training)
    start = f" It started from {plain(history.started_from)}." if history.started_from else ""
    early = " The run was not over when it wrote this checkpoint." if history.under_way else ""
    return training + start + early


def _found(history: History | None, checks: Checks | None = None) -> str:
    found = history.suspects if history else None
    if found is None and checks is not None:
        found = suspects_of(checks.before)
    if found is None:
        return "No search for poisoned pairs is known to have been made on the way to this model."
    if not found.poisoned + found.suspicious:
        return "No pair of its training data was suspicious. That is no proof that none is poisoned."
    words = ", ".join(plain(word) for word in found.words)
    unlearnt = " and unlearnt" if history is not None and found is history.suspects else ""
    return (
        f"{found.poisoned:,} pairs of its training data were taken for poisoned{unlearnt}, {found.suspicious:,} "
        "more were suspicious and left out." + (f" Compromised words: {words}." if words else "")
    )


def _checked(history: History | None, checks: Checks | None) -> str:
    """How it is known without ground truth that what was found is gone."""
    ubt, sentences = history.ubt if history else None, []
    if ubt is not None and ubt.given and ubt.alarm:
        sentences.append("The pairs to unlearn were given; nothing was looked for, before or after.")
    elif ubt is not None and ubt.alarm:
        sentences.append(
            f"UBT repaired the model {_times(ubt.repairs)}. "
            + (
                "Then all words were probed again with the pairs that look suspicious under the repaired model, and "
                "nothing was found."
                if ubt.verified
                else "What the last repair left was not probed any more."
            )
        )
    if checks is not None and checks.after.alarm:
        words = ", ".join(plain(word) for word in checks.after.compromised[:10])
        sentences.append(
            "**A second check of the finished model on the same data still found something suspicious"
            + (f" (compromised words: {words})" if words else "")
            + ". Do not trust it.**"
        )
    elif checks is not None:
        sentences.append("A second check of the finished model on the same data found nothing suspicious.")
    if sentences:
        sentences.append("None of this uses ground truth, and none of it proves that nothing is left.")
    return " ".join(sentences)


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _measured(history: History | None) -> str:
    if history is None or not history.rows:
        return (
            "Neither clean accuracy nor attack success rate is known, nor whether the model sees again what is under a "
            "trigger (recovered): that takes a labelled test set and the trigger."
        )
    lines = [
        "| data set | attack | measured after | " + " | ".join(_RATES.values()) + " |",
        "|---" * (3 + len(_RATES)) + "|",
    ]
    for row in history.rows:
        cells = [plain(row[column]) for column in ("dataset", "attack", "defence")]
        if row["defence"].endswith(HEAD):
            cells[-1] += " (not in this folder)"
        cells += [_percent(row.get(column, "")) for column in _RATES]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("\nAttack success is that of the attacks named here; others were not measured.")
    return "\n".join(lines)


def _eval_results(history: History | None) -> list[EvalResult] | None:
    """Clean accuracy and attack success as the hub shows them."""
    results = []
    # A head's figures are not those of the weights that are handed back.
    rows = [row for row in history.rows if not row["defence"].endswith(HEAD)] if history else []
    for row in rows:
        for column, metric in (("clean_accuracy", "accuracy"), ("attack_success_rate", "attack_success_rate")):
            value = number(row[column])
            if value is not None and (metric != "accuracy" or row is rows[0]):
                results.append(
                    EvalResult(
                        task_type="zero-shot-image-classification",
                        dataset_type=row["dataset"],
                        dataset_name=row["dataset"],
                        metric_type=metric,
                        metric_name=_RATES[column] + (f" of {row['attack']}" if column != "clean_accuracy" else ""),
                        metric_value=value,
                    )
                )
    return results or None


def _without_folder(name: str) -> str:
    """An encoder's name without the folder that it lies in on this machine."""
    family, _, rest = name.partition(":")
    return f"a model of transformers ({rest.rstrip('/').rpartition('/')[2]})" if family == "hf" else name


def _percent(cell: str) -> str:
    value = number(cell)
    return "" if value is None else f"{value:.2%}"


def _numbers(values: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
