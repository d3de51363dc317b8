"""How well each detector of pictures at test time ranks triggered pictures above clean ones, on poisoned models.

    python benchmarks/screening.py cifar10 runs/bench/ubt_targets/Blended-airplane-seed1-* ...

For each run 600 test pictures of other classes than the target are drawn, and the trigger is put on half of them. The
ROC AUC is of these against the others. A detector sees neither which is which nor the trigger.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from untrigger.commands.screen.choice import chosen_detectors
from untrigger.datamodules.poisoning import read_manifest
from untrigger.datamodules.shards.samples import decode_picture
from untrigger.datamodules.zero_shot import ZeroShotSet
from untrigger.lightning_modules.encoders.identify import open_encoder
from untrigger.lightning_modules.screening import ClassTexts, FrozenCLIP

COUNT, BATCH = 300, 64


def some_pictures(folder: ZeroShotSet, image_size: int) -> Iterator[tuple[str, int, Tensor]]:
    """The key, class and picture ``(3, S, S)`` uint8 of every fourth sample."""
    shards = folder.shards
    for shard, keys in enumerate(shards.keys()):
        for position in range(0, len(keys), 4):
            picture, label = shards.read_members(shard, position, "picture", "cls")
            pixels = torch.from_numpy(decode_picture(picture, image_size)).permute(2, 0, 1)
            yield keys[position], int(label), pixels


def aucs(folder: ZeroShotSet, run: Path) -> dict[str, float]:
    """By detector, and the attack success on the triggered pictures."""
    encoder, _ = open_encoder(str(run / "last.ckpt"), None)
    (plan,) = read_manifest(run / "poison.json").plans
    names = list(folder.class_prompts.classnames)
    target = names.index(plan.target)
    others = [sample for sample in some_pictures(folder, encoder.image_size) if sample[1] != target]
    drawn = [others[index] for index in np.random.default_rng(0).permutation(len(others))[: 2 * COUNT]]
    pictures = torch.stack([picture for _, _, picture in drawn])
    pictures[COUNT:] = plan.trigger(pictures[COUNT:], [key for key, _, _ in drawn[COUNT:]])
    model, texts = FrozenCLIP(encoder.eval()), ClassTexts(names, list(folder.templates))
    batches = [model.normalised(batch) for batch in torch.split(pictures, BATCH)]
    features = [model.images(batch) for batch in batches]
    predicted = torch.cat([model.predicted(each, model.classes(texts)) for each in features])
    found = {"attack success": float((predicted[COUNT:] == target).float().mean())}
    triggered = torch.arange(2 * COUNT) >= COUNT
    for kind in chosen_detectors(None, texts):
        detector = kind(model, texts)
        with torch.no_grad():
            scores = torch.cat([detector.score(*seen) for seen in zip(batches, features, strict=True)])
        ranks = scores.unique(return_inverse=True)[1].float() / len(scores)  # binary_auroc takes numbers in [0, 1]
        found[kind.name] = float(binary_auroc(ranks, triggered.long()))
    return found


def main() -> None:
    """Print a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the folder of the zero-shot set")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of poisoned runs, of one plan each")
    given = parser.parse_args()
    folder = ZeroShotSet(given.data)
    for run in given.runs:
        figures = "  ".join(f"{name} {value:.3f}" for name, value in aucs(folder, run).items())
        print(f"{run.name}: {figures}", flush=True)


if __name__ == "__main__":
    main()
