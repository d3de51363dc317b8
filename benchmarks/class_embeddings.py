"""What the class embeddings of ImageNet cost: 1,000 classes, 80 templates, once an evaluation.

    python benchmarks/class_embeddings.py --encoder open_clip:RN50 --classes 50

Prints the seconds and the growth of the process's peak memory, of tokenising and embedding as an evaluation does it.
Fewer classes are measured where a text tower is slow, and the seconds are given for these and by proportion for 1,000.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

from untrigger.datamodules.templates import IMAGENET_TEMPLATES
from untrigger.lightning_modules import PoisonedCLIP


def peak() -> float:
    """Peak memory of the process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="small:base-32")
    parser.add_argument("--classes", type=int, default=len(IMAGENET_CLASSNAMES))
    given = parser.parse_args()
    names = list(IMAGENET_CLASSNAMES)[: given.classes]
    prompts = [[template.replace("{c}", name) for template in IMAGENET_TEMPLATES] for name in names]
    model = PoisonedCLIP(given.encoder).eval()
    with torch.inference_mode():
        model._embed_prompts(prompts[:8])  # what is made once, such as the vocabulary
        before, wall, cpu = peak(), time.perf_counter(), time.process_time()
        embeddings = model._embed_prompts(prompts)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count = len(names) * len(IMAGENET_TEMPLATES)
    print(
        f"{given.encoder}: {tuple(embeddings.shape)} from {count:,} prompts in {wall:.1f} s ({cpu:.1f} s of processor "
        f"time), peak memory + {peak() - before:.0f} MB; 80,000 prompts by proportion {cpu * 80_000 / count:.0f} s of "
        "processor time"
    )


if __name__ == "__main__":
    main()
