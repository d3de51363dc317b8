"""Encoders of open_clip: every architecture that it lists, random or with the weights of one of its tags."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from ...contracts import UserMistake
from .base import Encoder
from .clip_vocabulary import CHARACTERS_PER_TOKEN, clip_rows, padded
from .messages import one_line
from .open_clip_files import preprocessing_of
from .preparation import warn_of_preparation
from .traits import open_clip_traits
from .visual_prompts import TokenBlocks

PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
"""What of open_clip's preprocessing follows from how a model was trained, not from its architecture."""


class OpenCLIPTokenizer:
    """Turns captions into tokens of one length. Picklable.

    A caption is cut to 32 characters a token before it is tokenised.

    Args:
        arch: An architecture's name.

    Raises:
        UserMistake: If the tokeniser must be fetched from the hub and cannot be.
    """

    def __init__(self, arch: str) -> None:
        try:
            self.tokenizer: Any = open_clip.get_tokenizer(arch)
        # The hub's client lets the exceptions of its HTTP library through.
        except Exception as error:
            raise UserMistake(
                f"open_clip:{arch}: its tokenizer cannot be fetched ({type(error).__name__}: {one_line(error)})"
            ) from error
        self.context_length: int = self.tokenizer.context_length
        options = open_clip.get_model_config(arch)["text_cfg"].get("tokenizer_kwargs")
        self._is_clips = type(self.tokenizer) is SimpleTokenizer and not options

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Turn N captions into ``(N, context_length)`` int64 tokens; over-long ones are cut before the end token."""
        if self._is_clips:
            rows = padded(clip_rows(captions, self.context_length), self.context_length)
            return torch.tensor(rows, dtype=torch.int64).view(len(rows), self.context_length)
        longest = CHARACTERS_PER_TOKEN * self.context_length
        tokens: Tensor = self.tokenizer([caption[:longest] for caption in captions])
        return tokens


class OpenCLIPEncoder(Encoder):
    """An open_clip model: ``ARCH`` with random weights, or ``ARCH/TAG`` with pretrained ones.

    A tag is one that open_clip itself lists for the architecture (``RN50/openai``, ``ViT-B-32/laion2b_s34b_b79k``).
    Its file comes from the hub, and open_clip reads it as safetensors or with ``weights_only=True``, never as a
    TorchScript program, which OpenAI's own archives are. Files of the user's are not loaded by name but by
    ``load_weights``. Weights that were trained with QuickGELU get it, whatever the architecture's name says.

    Architectures with a text tower or a tokeniser of transformers fetch its config and vocabulary from the hub.

    Args:
        name: ``ARCH`` or ``ARCH/TAG``.
        pretrained: Whether to load the tag's weights. Without them a tag still sets the activation function and the
            normalisation.

    Attributes:
        arch: The architecture's name.
        model: The open_clip model.
        model_cfg: What open_clip builds it from: the architecture's config, with QuickGELU where the tag asks for it.

    Raises:
        UserMistake: If there is no such architecture or tag, or a file that it needs cannot be fetched.
    """

    tokenizer: OpenCLIPTokenizer
    takes_logit_bias = True

    def __init__(self, name: str, pretrained: bool = True) -> None:
        super().__init__()
        arch, tag = _parse(name)
        self.tokenizer = tokenizer = OpenCLIPTokenizer(arch)
        self.context_length = tokenizer.context_length
        about = open_clip.get_pretrained_cfg(arch, tag) if tag is not None else {}
        self.model = _create(arch, tag, pretrained, about)
        self.model_cfg: dict[str, Any] = open_clip.get_model_config(arch)
        if about.get("quick_gelu"):
            self.model_cfg["quick_gelu"] = True
        for unused in ("logit_bias", "text_decoder"):
            # A bias of all logits cancels in the softmax, and CoCa's decoder writes captions; a parameter without a
            # gradient stops DDP.
            if (part := getattr(self.model, unused, None)) is not None:
                part.requires_grad_(False)
        self.image_size = _side(open_clip.get_model_preprocess_cfg(self.model)["size"], arch)
        self.arch = arch
        self.prepare_as({})
        self._embedding_dim: int = self.model_cfg["embed_dim"]

    @property
    def preprocess_cfg(self) -> dict[str, Any]:
        """How open_clip prepares pictures for the model: ``mean``, ``std``, ``interpolation`` and ``resize_mode``."""
        config = open_clip.get_model_preprocess_cfg(self.model)
        return {name: config[name] for name in PREPROCESSING if name in config}

    def prepare_as(self, config: Mapping[str, Any]) -> None:
        """Adopt a preprocessing of pictures, for what does not follow from the architecture.

        Args:
            config: Some of ``preprocess_cfg``, checked.

        Warns:
            UserWarning: If pictures are to be resized in another way than here.
        """
        merged = {**open_clip.get_model_preprocess_cfg(self.model), **config}
        open_clip.model.set_model_preprocess_cfg(self.model, merged)
        self.mean, self.std = tuple(merged["mean"]), tuple(merged["std"])
        warn_of_preparation(f"open_clip:{self.arch}", self.preprocess_cfg, self.image_size)

    def prepare_as_in(self, folder: Path) -> None:
        """See ``Encoder``."""
        self.prepare_as(preprocessing_of(folder))

    @property
    def traits(self) -> Mapping[str, Any]:
        """See ``Encoder``."""
        return {**open_clip_traits(self.model_cfg), **super().traits}

    @property
    def logit_scale(self) -> nn.Parameter:  # type: ignore[override]  # read through, so that it has one name only
        """Scalar parameter, the logarithm of the inverse temperature."""
        scale: nn.Parameter = self.model.logit_scale
        return scale

    @property
    def logit_bias(self) -> Tensor | None:
        """The bias of all logits that a model trained with the sigmoid loss has."""
        bias: Tensor | None = self.model.logit_bias
        return bias

    def set_logit_bias(self, bias: Tensor | None) -> None:
        """See ``Encoder``. The architecture is then one with a bias, or without, whatever its config says."""
        if bias is None:
            self.model.logit_bias = None
            self.model_cfg.pop("init_logit_bias", None)
            return
        value = bias.detach().to(self.logit_scale.dtype).reshape(self.logit_scale.shape).clone()
        self.model.logit_bias = nn.Parameter(value, requires_grad=False)
        self.model_cfg["init_logit_bias"] = float(value)

    @property
    def image_tower(self) -> nn.Module:
        """The model's ``visual``."""
        tower: nn.Module = self.model.visual
        return tower

    @property
    def embedding_dim(self) -> int:
        """Width D of the joint embedding space."""
        return self._embedding_dim

    @property
    def token_blocks(self) -> TokenBlocks | None:
        """Those of a vision transformer of open_clip's own that reads off its class token."""
        visual = self.image_tower
        if not isinstance(visual, VisionTransformer) or visual.pool_type != "tok" or visual.attn_pool is not None:
            return None
        transformer = visual.transformer
        return TokenBlocks(list(transformer.resblocks), transformer.width, transformer.batch_first)

    def encode_image(self, images: Tensor) -> Tensor:
        """Embed pictures ``(B, 3, image_size, image_size)`` as ``(B, D)``, not normalised."""
        features: Tensor = self.model.encode_image(images, normalize=False)
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Embed tokens ``(B, L)`` as ``(B, D)``, not normalised."""
        features: Tensor = self.model.encode_text(tokens, normalize=False)
        return features


def _parse(name: str) -> tuple[str, str | None]:
    """Architecture and tag, both known to open_clip."""
    arch, _, tag = name.partition("/")
    architectures = open_clip.list_models()
    if arch not in architectures:
        close = difflib.get_close_matches(arch, architectures, n=3, cutoff=0.4)
        raise UserMistake(
            f"open_clip has no architecture {one_line(arch)!r}; close are {', '.join(close) or 'none'}; "
            "open_clip.list_models() lists all, for example RN50, RN50/openai"
        )
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if "/" in name and not open_clip.is_pretrained_cfg(arch, tag):
        raise UserMistake(
            f"open_clip has no weights {one_line(tag)!r} for {arch}; there are {', '.join(tags) or 'none'}; "
            f"open_clip:{arch} alone has random weights, into which a checkpoint can be loaded"
        )
    return arch, tag or None


def _create(arch: str, tag: str | None, pretrained: bool, about: Mapping[str, Any]) -> Any:
    """The model, with what is known about its tag, weights or none."""
    prepared = {name: about[name] for name in PREPROCESSING if about.get(name) is not None}
    try:
        # pretrained_hf: without a tag the text tower is random too, rather than a language model's.
        return open_clip.create_model(
            arch,
            pretrained=tag if pretrained else None,
            force_quick_gelu=about.get("quick_gelu", False),
            force_preprocess_cfg=prepared,
            pretrained_hf=False,
        )
    # A download fails in many ways; open_clip and the hub's client wrap only some of them.
    except Exception as error:
        what = f"its weights {tag!r}" if tag and pretrained else "its text tower's config"
        raise UserMistake(
            f"open_clip:{arch}: {what} cannot be fetched or read ({type(error).__name__}: {one_line(error)})"
        ) from error


def _side(size: int | tuple[int, int], arch: str) -> int:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if sides[0] != sides[1]:
        raise UserMistake(f"open_clip:{arch} takes pictures of {sides[0]} x {sides[1]}; the input must be a square")
    return sides[0]
