"""The model card: Hugging Face's front matter, and what a reader must know of the model."""

from __future__ import annotations

import re

from huggingface_hub import EvalResult, ModelCardData

from ... import __version__
from ...lightning_modules.encoders import Encoder
from ...printable import printable
from ..summary import number
from .formats import Exporter
from .history import History

_DONE = {
    "UBT": "It unlearnt a suspected backdoor with UBT (arXiv 2403.16257, 2409.19526).",
    "CleanCLIP": "It was finetuned on pairs that were taken for clean, with CleanCLIP (arXiv 2303.03323).",
    "SupervisedFinetune": "Its image encoder was finetuned on labelled pictures (arXiv 2303.03323).",
    "PoisonedCLIP": "It was trained on pictures with captions, and no defence was applied.",
    "BadCLIP": "Nothing: a trigger was optimised against it, and it stayed as it was.",
    "DECREE": "Nothing: a trigger was looked for in it, and it stayed as it was.",
}
_PLANTED = (
    "**Its training data was poisoned on purpose (the checkpoint is marked). Use it for research on backdoors alone, "
    "and leave this mark where it is.**"
)
_RATES = {
    "clean_accuracy": "clean accuracy",
    "attack_success_rate": "attack success rate",
    "clean_target_rate": "clean target rate",
    "triggered_accuracy": "accuracy under the trigger",
}
_LONGEST = 80


def model_card(
    title: str, encoder: Encoder, name: str, exporter: Exporter, history: History | None, marked: bool
) -> str:
    """Write the card of an exported model.

    Args:
        title: The name of the folder.
        encoder: The model.
        name: Its encoder's name, ``FAMILY:NAME``.
        exporter: What wrote the folder.
        history: What is known of its run.
        marked: Whether its training data was poisoned on purpose.

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
        f"A CLIP model, {plain(_without_place(name))}, exported by Untrigger {__version__}.",
        "## What was done",
        _done(history) + (f"\n\n{_PLANTED}" if marked else ""),
        "## What was found",
        _found(history),
        "## What was measured",
        _measured(history),
        "## How to load it",
        exporter.usage.strip(),
        f"Pictures are squares of {encoder.image_size} pixels (short side resized, centre cropped), of mean "
        f"{_numbers(encoder.mean)} and standard deviation {_numbers(encoder.std)} per channel, in [0, 1]. Captions "
        f"have at most {encoder.context_length} tokens, embeddings {encoder.embedding_dim} dimensions.",
    ]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Text of unknown origin that Markdown, HTML and a terminal leave alone, cut to 80 characters."""
    shown = printable(text, _LONGEST).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~:-])", r"\\\1", shown)


def _done(history: History | None) -> str:
    if history is None:
        return "Nothing that is known: no files of a run lay beside the checkpoint."
    told = _DONE.get(history.method, f"It was trained with {plain(history.method)}.")
    start = f" It started from {plain(history.started_from)}." if history.started_from else ""
    return told + start


def _found(history: History | None) -> str:
    if history is None or history.suspects is None:
        return "Nobody looked for poisoned pairs on the way to this model, as far as is known."
    found = history.suspects
    if not found.poisoned + found.suspicious:
        return "No pair of its training data was suspicious. That is no proof that none is poisoned."
    words = ", ".join(plain(word) for word in found.words)
    return (
        f"{found.poisoned:,} pairs of its training data were taken for poisoned and unlearnt, {found.suspicious:,} "
        "more were suspicious and left out." + (f" Compromised words: {words}." if words else "")
    )


def _measured(history: History | None) -> str:
    if history is None or not history.rows:
        return "Neither clean accuracy nor attack success rate is known."
    lines = [
        "| data set | attack | measured after | " + " | ".join(_RATES.values()) + " |",
        "|---" * (3 + len(_RATES)) + "|",
    ]
    for row in history.rows:
        cells = [plain(row[column]) for column in ("dataset", "attack", "defence")]
        cells += [_percent(row[column]) for column in _RATES]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("\nAttack success is that of the attacks named here; others were not measured.")
    return "\n".join(lines)


def _eval_results(history: History | None) -> list[EvalResult] | None:
    """Clean accuracy and attack success as the hub shows them."""
    results = []
    rows = history.rows if history else []
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


def _without_place(name: str) -> str:
    """An encoder's name without the folder that it lies in on this machine."""
    family, _, rest = name.partition(":")
    return f"a model of transformers ({rest.rstrip('/').rpartition('/')[2]})" if family == "hf" else name


def _percent(cell: str) -> str:
    value = number(cell)
    return "" if value is None else f"{value:.2%}"


def _numbers(values: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
