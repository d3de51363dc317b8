from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from untrigger.contracts import UserMistake
from untrigger.lightning_modules.encoders import build_encoder
from untrigger.lightning_modules.encoders.huggingface import HuggingFaceEncoder
from untrigger.lightning_modules.encoders.open_clip import OpenCLIPEncoder
from untrigger.lightning_modules.encoders.small import SmallCLIPEncoder


@pytest.mark.usefixtures("tiny_open_clip")
def test_the_family_decides_the_encoder(clip_folder: Callable[..., Path]) -> None:
    assert type(build_encoder("small:nano-32")) is SmallCLIPEncoder
    assert type(build_encoder("open_clip:tiny-ViT")) is OpenCLIPEncoder
    assert type(build_encoder(f"hf:{clip_folder()}")) is HuggingFaceEncoder


@pytest.mark.parametrize("name", ["RN50", "", ":", "clip:RN50", "hf:", "openclip:RN50", "a\nb:\x1b[2J"])
def test_an_unknown_family_lists_the_families(name: str) -> None:
    with pytest.raises(UserMistake, match=r"unknown encoder .* hf:FOLDER .* open_clip:ARCH .* small:PRESET") as mistake:
        build_encoder(name)
    assert str(mistake.value).isprintable()


@pytest.mark.parametrize("name", ["small:huge", "open_clip:RN5", "hf:./nowhere"])
def test_an_unknown_name_is_one_line(name: str) -> None:
    with pytest.raises(UserMistake) as mistake:
        build_encoder(name)
    assert name.partition(":")[2] in str(mistake.value)
    assert str(mistake.value).isprintable()
