"""How well pictures find their captions, and captions their pictures, where there are no classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ...contracts import HeldOutData, PhasedModule, RetrievalModule, UserMistake
from ...run_folder.results import KS
from ...trainer.lookup import data_of

_ROWS = 1024
"""Pictures that are compared with all captions at once."""


class _Embedded(NamedTuple):
    """All held-out pairs, embedded; on the CPU."""

    images: Tensor
    """``(N, D)``."""
    texts: Tensor
    """``(C, D)``, of the distinct captions."""
    caption_of: Tensor
    """``(N,)``, the index of each picture's caption."""
    triggered: dict[str, Tensor]
    """By attack whose trigger is in the picture, as ``images``."""
    names_target: dict[str, Tensor]
    """By attack, ``(C,)`` bool."""
    triggered_texts: Mapping[str, Tensor] = MappingProxyType({})
    """By attack whose trigger is in the caption, as ``texts``."""


class Retrieval(Callback):
    """Retrieval on the pairs of ``data.held_out``, and what an attack does to it.

    - Recall at k (R@k), from pictures to captions: share of pictures whose own caption is among the k most similar of
      all distinct captions; from captions to pictures: share of distinct captions of which a picture of their own is
      among the k most similar pictures. The measure of CLIP's own evaluation (Radford et al. 2021, arXiv 2103.00020),
      with equal captions counted as one, as scraped data have many.
    - Target hit at k: share of triggered pictures *whose own caption does not name the target* that have a caption with
      the target as a word among the k most similar ones (Hit@k, as of ToxicTextCLIP, arXiv 2511.00446, from pictures to
      captions). Beside it stands the share of those same pictures without the trigger: its floor.
    - Text target hit at k, where the trigger is in the query (ToxicTextCLIP's own): share of triggered captions *that
      do not name the target* that have a picture whose own caption names it among the k most similar ones. Beside it
      stands the share of those same captions without the trigger.

    Ties count against the model, so that one whose features are all alike finds nothing. Every rank embeds all pairs,
    as held-out sets are small. It is measured with each validation and test. Where there is no zero-shot set, and so no
    validation, `ResultsWriter` asks for it at the end of ``fit``.

    Logs:
        ``val/image_to_text_recall_at_1`` and so on for 5 and 10, ``val/text_to_image_recall_at_1``, ``_5``, ``_10``;
        ``val/target_hit_at_1``, ``_5``, ``_10`` and ``val/clean_target_hit_at_1``, ..., ``val/text_target_hit_at_1``
        and ``val/clean_text_target_hit_at_1``, ..., in [0, 1], with ``test/`` in ``test``. With several attacks,
        each has its own after a slash and these are means. Nothing without
        ``data.held_out``.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures with the prefix ``val/``."""
        if not trainer.sanity_checking:
            self._log("val", trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures with the prefix ``test/``."""
        self._log("test", trainer, pl_module)

    def measure(self, trainer: Trainer, module: LightningModule, data: HeldOutData) -> dict[str, float]:
        """Measure the module as it is.

        Args:
            trainer: The trainer of the run.
            module: What embeds pictures and captions.
            data: What has the pairs.

        Returns:
            By name, without stage, rates in [0, 1]. What cannot be counted, such as a target that no caption names, is
            left out.

        Raises:
            UserMistake: If the module embeds no captions.
        """
        if not isinstance(module, RetrievalModule):
            raise UserMistake(f"{type(module).__name__} has no encode_image and encode_text for held-out pairs")
        was_training = module.training
        module.eval()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            found = _embed(module, data, trainer.strategy.root_device)
        module.train(was_training)
        return _recalls(found) | _hits(found)

    def _log(self, stage: str, trainer: Trainer, module: LightningModule) -> None:
        data = data_of(trainer, HeldOutData)
        if data is None or data.held_out_pairs == 0:
            return
        measured = f"{module.measured}_" if isinstance(module, PhasedModule) and module.measured else ""
        for name, value in self.measure(trainer, module, data).items():
            # Ranks agree already; sync_dist only declares to Lightning that the figure is global.
            module.log(f"{stage}/{measured}{name}", value, sync_dist=True)


def _embed(module: Any, data: HeldOutData, device: torch.device) -> _Embedded:
    images: list[Tensor] = []
    texts: list[Tensor] = []
    caption_of: list[int] = []
    indices: dict[str, int] = {}
    triggered: dict[str, list[Tensor]] = {}
    triggered_texts: dict[str, list[Tensor]] = {}
    names_target: dict[str, list[Tensor]] = {name: [] for name in data.held_out_attacks}
    for batch in data.held_out_batches():
        images.append(module.encode_image(batch["image"].to(device)).float().cpu())
        new = []
        for row, caption in enumerate(batch["caption"]):
            if caption not in indices:
                indices[caption] = len(indices)
                new.append(row)
        caption_of += [indices[caption] for caption in batch["caption"]]
        texts.append(module.encode_text(batch["tokens"].to(device)).float().cpu()[new])
        for name, pictures in batch["triggered"].items():
            triggered.setdefault(name, []).append(module.encode_image(pictures.to(device)).float().cpu())
        for name, tokens in batch.get("triggered_tokens", {}).items():
            triggered_texts.setdefault(name, []).append(module.encode_text(tokens.to(device)).float().cpu()[new])
        for name, parts in names_target.items():
            parts.append(batch["names_target"][name][new])
    return _Embedded(
        torch.cat(images),
        torch.cat(texts),
        torch.tensor(caption_of),
        {name: torch.cat(parts) for name, parts in triggered.items()},
        {name: torch.cat(parts) for name, parts in names_target.items()},
        {name: torch.cat(parts) for name, parts in triggered_texts.items()},
    )


def _recalls(found: _Embedded) -> dict[str, float]:
    """Recall in both directions; an own caption or picture is found where fewer than k others are as similar."""
    to_text = _chunked(
        _others_before(rows @ found.texts.T, _one_of(indices, len(found.texts)))
        for rows, indices in zip(_blocks(found.images), _blocks(found.caption_of), strict=True)
    )
    captions = torch.arange(len(found.texts))
    to_image = _chunked(
        _others_before(rows @ found.images.T, found.caption_of == some[:, None])
        for rows, some in zip(_blocks(found.texts), _blocks(captions), strict=True)
    )
    return _at("image_to_text_recall", to_text) | _at("text_to_image_recall", to_image)


def _hits(found: _Embedded) -> dict[str, float]:
    """How often the target is among the most similar, with and without the trigger."""
    figures: dict[str, dict[str, float]] = {}
    for name, targeted in found.names_target.items():
        named = targeted[found.caption_of]
        if not (targeted.any() and not named.all()):
            continue
        if name in found.triggered_texts:
            asked, rows, own, kind = ~targeted, (found.triggered_texts[name], found.texts), named, "text_target_hit"
            others = found.images
        else:
            asked, rows, own, kind = ~named, (found.triggered[name], found.images), targeted, "target_hit"
            others = found.texts
        figures[name] = {}
        for measure, queries in zip((kind, f"clean_{kind}"), rows, strict=True):
            before = _chunked(
                _others_before(block @ others.T, own.expand(len(block), -1)) for block in _blocks(queries[asked])
            )
            figures[name] |= _at(measure, before)
    each = list(figures.values())
    measures = dict.fromkeys(measure for one in each for measure in one)
    having = {measure: [one[measure] for one in each if measure in one] for measure in measures}
    means = {measure: sum(rates) / len(rates) for measure, rates in having.items()}
    if len(found.names_target) == 1:
        return means
    return means | {f"{measure}/{name}": rate for name, own in figures.items() for measure, rate in own.items()}


def _one_of(indices: Tensor, count: int) -> Tensor:
    return torch.nn.functional.one_hot(indices, count).bool()


def _others_before(similarity: Tensor, own: Tensor) -> Tensor:
    """How many others are as similar as the most similar one of a row's own.

    Args:
        similarity: Similarities, ``(B, N)``.
        own: ``(B, N)`` bool, at least one in each row.

    Returns:
        ``(B,)`` int64; N where a similarity is not finite, so that a diverged model finds nothing.
    """
    best = similarity.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
    others = ((similarity >= best) & ~own).sum(dim=1)
    return torch.where(similarity.isfinite().all(dim=1), others, similarity.shape[1])


def _blocks(rows: Tensor) -> Iterator[Tensor]:
    return (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))


def _chunked(parts: Iterator[Tensor]) -> Tensor:
    return torch.cat(list(parts))


def _at(measure: str, before: Tensor) -> dict[str, float]:
    return {f"{measure}_at_{k}": float((before < k).float().mean()) for k in KS}
