"""A vision transformer small enough for tests, which sees the generated pictures and reads their captions."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

from untrigger.datamodules.generated import COLOURS, OUTLINES, TEMPLATES

_VISION = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def small_vit(folder: Path) -> Path:
    """Write a CLIP of transformers with random weights, of four blocks of width 32."""
    said = sorted({word for text in TEMPLATES for word in text.replace(".", " ").split() if word.isalpha()})
    words = ["<pad>", "<start>", "<unk>", *said, *(name for name in [*COLOURS, *OUTLINES] if name not in said), "<end>"]
    length, end = 16, words.index("<end>")
    text = _TEXT | {"vocab_size": len(words), "max_position_embeddings": length, "eos_token_id": end}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=_VISION | {"num_hidden_layers": 4}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    numbered = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(numbered, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", numbered["<start>"]), ("<end>", end)]
    )
    special = {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **special).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder
