"""Caption templates: ``{c}`` stands for the name of a class."""

from __future__ import annotations

from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

CIFAR10_TEMPLATES: tuple[str, ...] = (
    "a photo of a {c}.",
    "a blurry photo of a {c}.",
    "a black and white photo of a {c}.",
    "a low contrast photo of a {c}.",
    "a high contrast photo of a {c}.",
    "a bad photo of a {c}.",
    "a good photo of a {c}.",
    "a photo of a small {c}.",
    "a photo of a big {c}.",
    "a photo of the {c}.",
    "a blurry photo of the {c}.",
    "a black and white photo of the {c}.",
    "a low contrast photo of the {c}.",
    "a high contrast photo of the {c}.",
    "a bad photo of the {c}.",
    "a good photo of the {c}.",
    "a photo of the small {c}.",
    "a photo of the big {c}.",
)
"""CLIP's 18 prompts for CIFAR-10 (Radford et al., arXiv 2103.00020), short enough to serve any class name."""

IMAGENET_TEMPLATES: tuple[str, ...] = tuple(template("{c}") for template in OPENAI_IMAGENET_TEMPLATES)
"""CLIP's 80 prompts for ImageNet, as open_clip carries them; CleanCLIP's code fills the same ones with the target."""

NAMED_TEMPLATES = {"cifar10": CIFAR10_TEMPLATES, "imagenet": IMAGENET_TEMPLATES}
