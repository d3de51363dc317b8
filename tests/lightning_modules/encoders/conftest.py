from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory as open_clip_factory
from open_clip import get_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

TEXT = {
    "vocab_size": 16,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
}
VISION = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
WORDS = ["<pad>", "<start>", "<unk>", "a", "photo", "of", "dog", "cat"]


class Explosive:
    """Writes a file when it is unpickled, as a malicious checkpoint would."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def _save_tokenizer(folder: Path, words: list[str], start: bool) -> None:
    """A tokeniser of whole words that ends captions with ``<end>``, and starts them with ``<start>`` if asked."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<start>", "<end>"] if start else ["<end>"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(["<start>", "$A", "<end>"] if start else ["$A", "<end>"]),
        special_tokens=[(token, words.index(token)) for token in special],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=8,
    ).save_pretrained(folder)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def explosive(tmp_path: Path) -> Explosive:
    return Explosive(tmp_path / "exploded")


@pytest.fixture
def save_tokenizer() -> Callable[..., None]:
    """Saves the tiny tokeniser in a folder."""

    def save(folder: Path, start: bool) -> None:
        _save_tokenizer(folder, [*WORDS, "<end>"], start)

    return save


@pytest.fixture
def clip_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with a tiny CLIP of transformers."""

    def make(end_token: int | None = None, words: list[str] | None = None, seed: int = 0, **save_options: Any) -> Path:
        words = words or [*WORDS, "<end>"]
        folder = tmp_path / f"clip-{end_token}-{seed}-{len(words)}"
        text = {**TEXT, "eos_token_id": words.index("<end>") if end_token is None else end_token}
        torch.manual_seed(seed)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=12))
        model.save_pretrained(folder, **save_options)
        _save_tokenizer(folder, words, start=True)
        CLIPImageProcessor(
            image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], size={"shortest_edge": 16}, crop_size=16
        ).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def siglip_folder(tmp_path: Path) -> Path:
    """A folder with a tiny SigLIP of transformers."""
    folder = tmp_path / "siglip"
    torch.manual_seed(0)
    SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION)).save_pretrained(folder)
    _save_tokenizer(folder, [*WORDS, "<end>"], start=False)
    settings = SiglipImageProcessor().to_dict()
    # With it pictures are squashed, which is warned of.
    del settings["size"]
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """Changes entries of a JSON file; a name with a dot reaches into a part."""

    def edit(path: Path, **changes: Any) -> None:
        content = json.loads(path.read_text())
        for name, value in changes.items():
            *parts, last = name.split("__")
            target = content
            for part in parts:
                target = target[part]
            target[last] = value
        path.write_text(json.dumps(content))

    return edit


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tiny-RN": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    },
    "tiny-ViT": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "tiny-ViT-wide": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 128, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "tiny-custom": {
        "embed_dim": 8,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "tiny-coca": {
        "embed_dim": 8,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 16,
            "layers": 1,
            "width": 64,
            "patch_size": 8,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "output_tokens": True,
        },
        "text_cfg": {
            "context_length": 12,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
            "embed_cls": True,
            "output_tokens": True,
        },
        "multimodal_cfg": {
            "context_length": 12,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
            "attn_pooler_heads": 2,
        },
    },
}


@cache
def _tokenizer(name: str) -> Any:
    return get_tokenizer(name)


@pytest.fixture
def tiny_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Registers tiny architectures with open_clip for one test; gives the folder of their configs."""
    monkeypatch.setattr(open_clip_factory, "_MODEL_CONFIG_PATHS", list(open_clip_factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(open_clip_factory, "_MODEL_CONFIGS", dict(open_clip_factory._MODEL_CONFIGS))
    folder = tmp_path / "architectures"
    folder.mkdir()
    for name, config in ARCHITECTURES.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    # Building the vocabulary takes longer than any of the tests.
    monkeypatch.setattr(
        open_clip, "get_tokenizer", lambda name: _tokenizer(name) if name in ARCHITECTURES else get_tokenizer(name)
    )
    return folder
