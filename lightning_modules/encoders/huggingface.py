"""Encoders of transformers: CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...contracts import UserMistake
from .base import Encoder
from .checkpoint_files import read_tensors
from .huggingface_files import asked_preparation, model_folder, normalisation, read_json
from .huggingface_tokenizer import HuggingFaceTokenizer
from .messages import one_line
from .preparation import warn_of_preparation
from .traits import transformers_traits
from .visual_prompts import TokenBlocks
from .weights import load_weights

_WIDTHS = (
    ("hidden_size", 2**16, "a width"),
    ("intermediate_size", 2**18, "a width"),
    ("num_hidden_layers", 1024, "a number of layers"),  # each takes time to build, even where it takes no memory
    ("num_attention_heads", 2**12, "a number of heads"),
)
_NUMBERS = {
    "text_config": (
        *_WIDTHS,
        ("max_position_embeddings", 2**14, "a number of tokens"),
        ("vocab_size", 2**22, "a number of tokens"),
    ),
    "vision_config": (
        *_WIDTHS,
        ("image_size", 2**13, "one number, the side of a square in pixels"),
        ("patch_size", 2**13, "one number, the side of a square in pixels"),
    ),
    "config": (("projection_dim", 2**16, "a width"),),
}
"""What is built from the numbers of a config, with more than any model has: it is looked at before it is built."""


class HuggingFaceEncoder(Encoder):
    """CLIP or SigLIP of transformers, from a local folder or a name on the Hugging Face hub.

    SigLIP 2 in its fixed-resolution form is a SigLIP to transformers and loads as one. Nothing in the folder is run:
    no code of its own, no attention kernel that its config names, and weights are read as tensors only, from
    safetensors where there are any.

    The input is a square of the model's own size. Embeddings are those of ``get_image_features`` and
    ``get_text_features``; captions are padded to the full context without an attention mask, as both models were
    trained. SigLIP's ``logit_scale`` is of shape (1,).

    Args:
        name: A folder, or a name on the hub.
        pretrained: Whether to load the weights; they are random otherwise.

    Attributes:
        model: The ``CLIPModel`` or ``SiglipModel``.

    Raises:
        UserMistake: If there is no such model, or it cannot be read, or it would not work as an encoder.

    Warns:
        UserWarning: If its image processor asks for pictures of another size, or resized in another way.
    """

    tokenizer: HuggingFaceTokenizer

    def __init__(self, name: str, pretrained: bool = True) -> None:
        super().__init__()
        folder = model_folder(name, weights=pretrained)
        config = _read_config(folder)
        self.context_length = config.text_config.max_position_embeddings
        tokenizer = HuggingFaceTokenizer(folder, self.context_length)
        tokenizer.check_vocabulary(config.text_config.vocab_size, folder)
        if config.model_type == "clip":
            tokenizer.check_end_token(config.text_config.eos_token_id, folder)
        self.tokenizer = tokenizer
        self.image_size = config.vision_config.image_size
        self.mean, self.std = normalisation(folder, config.model_type)
        warn_of_preparation(str(folder), asked_preparation(folder), self.image_size)

        self.model = _build(config, folder, pretrained)
        if hasattr(self.model, "logit_bias"):
            # A bias of all logits cancels in the softmax, and a parameter without a gradient stops DDP.
            self.model.logit_bias.requires_grad_(False)
        # In a tuple, since as a child it would name the tensors of the model's parts a second time.
        self._image_tower = (_ImageTower(self.model),)
        if pretrained:
            load_weights(self, str(folder))

    @property
    def traits(self) -> Mapping[str, Any]:
        """See ``Encoder``."""
        return {**transformers_traits(self.model.config.to_dict()), **super().traits}

    @property
    def logit_scale(self) -> nn.Parameter:  # type: ignore[override]  # read through, so that it has one name only
        """Scalar parameter, the logarithm of the inverse temperature."""
        scale: nn.Parameter = self.model.logit_scale
        return scale

    @property
    def logit_bias(self) -> Tensor | None:
        """SigLIP's bias of all logits; None for CLIP."""
        bias: Tensor | None = getattr(self.model, "logit_bias", None)
        return bias

    @property
    def takes_logit_bias(self) -> bool:  # type: ignore[override]  # read from the model
        """Whether it is a SigLIP."""
        return self.logit_bias is not None

    def set_logit_bias(self, bias: Tensor | None) -> None:
        """See ``Encoder``. SigLIP always has one: a file that has none means 0, as in open_clip."""
        if self.logit_bias is not None:
            with torch.no_grad():
                self.logit_bias.fill_(0 if bias is None else bias.item())

    @property
    def image_tower(self) -> nn.Module:
        """The vision model and its projection; called on pictures it gives what ``encode_image`` gives."""
        return self._image_tower[0]

    @property
    def embedding_dim(self) -> int:
        """Width D of the joint embedding space."""
        return _embedding_dims(self.model.config)[0]

    @property
    def token_blocks(self) -> TokenBlocks | None:
        """CLIP's; SigLIP pools all tokens."""
        if self.model.config.model_type != "clip":
            return None
        return TokenBlocks(
            list(self.model.vision_model.encoder.layers), self.model.config.vision_config.hidden_size, batch_first=True
        )

    def train(self, mode: bool = True) -> HuggingFaceEncoder:
        """Set training mode, the image tower's included, which is no child."""
        super().train(mode)
        self.image_tower.training = mode
        return self

    def encode_image(self, images: Tensor) -> Tensor:
        """Embed pictures ``(B, 3, image_size, image_size)`` as ``(B, D)``, not normalised."""
        features: Tensor = self.image_tower(images)
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embed tokens ``(B, L)`` as ``(B, D)``, not normalised."""
        features: Tensor = self.model.text_model(input_ids=tokens, return_dict=True).pooler_output
        if hasattr(self.model, "text_projection"):
            features = self.model.text_projection(features)
        return features


class _ImageTower(nn.Module):
    """The parts of the model that embed pictures, which transformers keeps side by side with those for captions."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.visual_projection = getattr(model, "visual_projection", None)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.vision_model(pixel_values=images, return_dict=True).pooler_output
        return features if self.visual_projection is None else self.visual_projection(features)


def _read_config(folder: Path) -> Any:
    """The model's config, checked for what an encoder needs."""
    from transformers import AutoConfig

    read_json(folder / "config.json")  # no larger than a description is
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    # Whatever goes wrong while a foreign file is parsed is a fault of that file.
    except Exception as error:
        raise UserMistake(f"{folder} holds no config that transformers reads: {one_line(error)}") from error
    if config.model_type not in ("clip", "siglip"):
        raise UserMistake(
            f"{folder} is a {one_line(config.model_type)!r} model; hf: takes transformers' CLIP ('clip') and SigLIP "
            "('siglip', SigLIP 2 of fixed resolution included)"
        )
    _check_numbers(config, folder)
    if not getattr(config.vision_config, "vision_use_head", True):
        raise UserMistake(f"{folder}: with vision_config.vision_use_head false the model embeds no pictures")
    image_dim, text_dim = _embedding_dims(config)
    if image_dim != text_dim:
        raise UserMistake(f"{folder}: pictures are embedded in {image_dim} dimensions but captions in {text_dim}")
    return config


def _check_numbers(config: Any, folder: Path) -> None:
    """Check that each number that something is built from is one, and no larger than in any model."""
    parts = {"text_config": config.text_config, "vision_config": config.vision_config, "config": config}
    for part, (name, most, what) in ((p, n) for p, names in _NUMBERS.items() for n in names):
        value = getattr(parts[part], name, None)
        if value is None and part == "config":
            continue  # SigLIP's has no width of its own
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            said = one_line(repr(value), 40)
            raise UserMistake(f"{folder}: {part}.{name} is {said}, and must be {what}, of 1 to {most:,}")


def _embedding_dims(config: Any) -> tuple[int, int]:
    """Width of the embeddings of pictures and of captions."""
    if config.model_type == "clip":
        return config.projection_dim, config.projection_dim
    return config.vision_config.hidden_size, config.text_config.projection_size


def _build(config: Any, folder: Path, pretrained: bool) -> Any:
    """The model with random weights in single precision, which mixed precision casts from."""
    from transformers import AutoModel

    def build() -> Any:
        # Named here, because a config can name a kernel on the hub to be fetched and run.
        return AutoModel.from_config(config, attn_implementation="sdpa", trust_remote_code=False)  # type: ignore[no-untyped-call]

    try:
        if pretrained:
            with torch.device("meta"):
                _check_size(build(), folder)
        return build().float()
    except UserMistake:
        raise
    except Exception as error:
        raise UserMistake(f"{folder}: its config describes no model that can be built: {one_line(error)}") from error


def _check_size(skeleton: nn.Module, folder: Path) -> None:
    """Check, before memory is taken for it, that the model described is no larger than the weights beside it."""
    described = sum(tensor.numel() for tensor in skeleton.parameters())
    present = sum(tensor.numel() for tensor in read_tensors(folder).values())
    if described > 2 * present:
        raise UserMistake(
            f"{folder}: its config describes a model of {described:,} numbers, but the weights beside it have "
            f"{present:,}"
        )
