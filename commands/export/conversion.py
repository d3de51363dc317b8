"""Convert open_clip's CLIP to transformers' CLIP: the same towers under other names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from open_clip import SimpleTokenizer
from torch import Tensor

from ...contracts import UserMistake
from ...files.writing import write_text
from ...lightning_modules.encoders.open_clip import OpenCLIPEncoder

_VISION = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
_TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_WHOLE = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale"}
_END, _START = "<|endoftext|>", "<|startoftext|>"

_PLAIN = {
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.proj": "visual_projection.weight",
}
_TRANSPOSED = ("text_projection", "visual.proj")
# Prefixes, the longer ones first.
_RENAMED = (
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.attn\.", ".self_attn."),
)


def converted_model(encoder: OpenCLIPEncoder) -> Any:
    """Transformers' CLIP with an open_clip model's weights.

    Args:
        encoder: The model: a vision transformer and open_clip's text tower, both in their plain form.

    Returns:
        A ``CLIPModel``.

    Raises:
        UserMistake: If transformers has no equal architecture.
    """
    from transformers import CLIPConfig, CLIPModel

    _check_equal(encoder)
    model_cfg = encoder.model_cfg
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    activation = "quick_gelu" if model_cfg.get("quick_gelu") else "gelu"
    width, text_width = vision.get("width", 768), text.get("width", 512)
    config = CLIPConfig(
        projection_dim=model_cfg["embed_dim"],
        vision_config={
            "hidden_size": width,
            "intermediate_size": int(width * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision.get("layers", 12),
            "num_attention_heads": width // vision.get("head_width", 64),
            "image_size": encoder.image_size,
            "patch_size": vision.get("patch_size", 16),
            "hidden_act": activation,
            "projection_dim": model_cfg["embed_dim"],
        },
        text_config={
            "vocab_size": text.get("vocab_size", 49408),
            "hidden_size": text_width,
            "intermediate_size": int(text_width * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text.get("layers", 12),
            "num_attention_heads": text.get("heads", 8),
            "max_position_embeddings": encoder.context_length,
            "hidden_act": activation,
            "projection_dim": model_cfg["embed_dim"],
        },
    )
    model: Any = CLIPModel(config).eval()  # type: ignore[no-untyped-call]
    tensors: dict[str, Tensor] = {}
    for name, tensor in encoder.model.state_dict().items():
        tensors.update(_renamed(name, tensor))
    model.load_state_dict(tensors)
    return model


def converted_tokenizer(encoder: OpenCLIPEncoder, folder: Path) -> None:
    """Write transformers' tokenizer of CLIP's vocabulary, as open_clip ships it.

    It reads plain text as open_clip's does. Text that is broken or has HTML entities, open_clip's mends first.

    Args:
        encoder: The model, with open_clip's own tokenizer.
        folder: Where to.
    """
    from transformers import CLIPTokenizerFast  # type: ignore[attr-defined]  # made on import

    own: SimpleTokenizer = encoder.tokenizer.tokenizer
    special = {own.sot_token_id: _START, own.eot_token_id: _END}
    vocabulary = {special.get(token, word): token for word, token in own.encoder.items()}
    merges = [" ".join(pair) for pair in sorted(own.bpe_ranks, key=own.bpe_ranks.__getitem__)]
    write_text(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
    write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *merges]) + "\n")
    tokenizer = CLIPTokenizerFast.from_pretrained(str(folder), model_max_length=encoder.context_length)
    tokenizer.save_pretrained(folder)


def _check_equal(encoder: OpenCLIPEncoder) -> None:
    model_cfg = encoder.model_cfg
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    if isinstance(vision.get("layers", 12), list):
        why = "its image tower is a ResNet"
    elif "timm_model_name" in vision or "hf_model_name" in text:
        why = "a tower of it is of another library's"
    elif extra := sorted(
        {*(model_cfg.keys() - _WHOLE), *(vision.keys() - _VISION), *(text.keys() - _TEXT)},
    ):
        why = f"its config asks for {', '.join(extra)}"
    elif type(encoder.tokenizer.tokenizer) is not SimpleTokenizer or text.get("vocab_size", 49408) != 49408:
        why = "its vocabulary is not CLIP's"
    else:
        return
    raise UserMistake(
        f"transformers has no architecture that equals open_clip:{encoder.arch} ({why}); use --format open_clip"
    )


def _renamed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor under transformers' name, or three of them: open_clip keeps query, key and value as one."""
    if name in _PLAIN:
        return {_PLAIN[name]: tensor.T.contiguous() if name in _TRANSPOSED else tensor}
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    head, joint, kind = name.rpartition(".in_proj_")
    if not joint:
        return {name: tensor}
    parts = zip("qkv", torch.chunk(tensor, 3), strict=True)
    return {f"{head}.{part}_proj.{kind}": chunk.contiguous() for part, chunk in parts}
