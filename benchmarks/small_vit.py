"""A small vision transformer with random weights, as a Hugging Face folder: `configs/bench/vit.yaml` trains it.

    python benchmarks/small_vit.py runs/vit-32

Patches of 4 pixels of 32, unless it is told otherwise, and 6 layers of 192, beside a text tower of CLIP's vocabulary
(which open_clip ships).
"""

from __future__ import annotations

import argparse

import torch
from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

VISION = {"image_size": 32, "hidden_size": 192, "intermediate_size": 768}
TEXT = {"max_position_embeddings": 24, "hidden_size": 128, "intermediate_size": 512}
LAYERS = {"vision": {"num_hidden_layers": 6, "num_attention_heads": 3}, "text": {"num_hidden_layers": 2}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where it goes")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--patch_size", type=int, default=4, help="8 has a quarter of the tokens")
    arguments = parser.parse_args()
    vocabulary = SimpleTokenizer()
    start, end = vocabulary.sot_token_id, vocabulary.eot_token_id
    text = {**TEXT, **LAYERS["text"], "num_attention_heads": 2, "vocab_size": vocabulary.vocab_size}
    ends = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    config = CLIPConfig(
        text_config=text | ends,
        vision_config=VISION | LAYERS["vision"] | {"patch_size": arguments.patch_size},
        projection_dim=128,
        logit_scale_init_value=2.66,
    )
    torch.manual_seed(arguments.seed)
    model = CLIPModel(config)
    model.save_pretrained(arguments.folder)
    merges = [" ".join(pair) for pair in vocabulary.bpe_ranks]
    tokenizer = CLIPTokenizer(vocab=_plain(vocabulary.encoder), merges=[tuple(merge.split(" ")) for merge in merges])
    tokenizer.save_pretrained(arguments.folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(arguments.folder)
    print(f"{arguments.folder}: {sum(weights.numel() for weights in model.parameters()):,} weights")


def _plain(encoder: dict[str, int]) -> dict[str, int]:
    """The vocabulary with the names that transformers has for the start and the end of a text."""
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    return {names.get(token, token): index for token, index in encoder.items()}


if __name__ == "__main__":
    main()
