"""Caption templates: ``{c}`` stands for the name of a class."""

from __future__ import annotations

from collections.abc import Sequence

from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

from ..contracts import UserMistake

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


def check_templates(templates: Sequence[str], where: str) -> None:
    """Check whether templates can be filled with a class name.

    Args:
        templates: Captions.
        where: What they are of, for the message.

    Raises:
        UserMistake: If there is none, or one has no ``{c}``.
    """
    if not templates:
        raise UserMistake(f"{where}: there is none; give at least one, such as 'a photo of a {{c}}.'")
    for template in templates:
        if "{c}" not in template:
            raise UserMistake(f"{where}: template {template!r:.200} has no {{c}}, which stands for the class name")
